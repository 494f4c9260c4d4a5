// The steps of a decoding product: one chunk of a few rows, and the factors that their sums are multiplied with.
//
// A row is read in chunks of one vector of its low plane. A lane (4 bytes) holds 32 / low codes that follow one
// another, so it lies in one group, and sums stay in their lanes until the row is done:
//
//   integer activations   y[n] = sum over lanes of  (scale_w * scale_x) * (sum code * q - centre * sum q)
//   float activations     y[n] = sum over lanes of  scale_w * (sum (code - centre) * x)
//
// Scales belong to segments: groups, or the pieces of 128 codes of longer ones.
//
// Zero points cost one product per group and row:  - scale_w * (zero - centre) * (sum of x over the group).
#pragma once
#include "elementary.h"
#include "matrix.h"

namespace slmc {
namespace {

template <int I>
struct Index {
  static constexpr int value = I;
};

// body(Index<0>) .. body(Index<N - 1>), so that shifts are immediates.
template <int N, int I = 0, typename Body>
SLMC_INLINE void unrolled(const Body& body) {
  if constexpr (I < N) {
    body(Index<I>{});
    unrolled<N, I + 1>(body);
  }
}

// Where every lane is a row and its high bits begin at bit `first`: adds those of part j's four codes to their bytes.
template <typename V, int low, int high, int part, int first>
SLMC_INLINE typename V::I add_high_by_shifts(typename V::I bytes, typename V::I words) {
  unrolled<4>([&](auto byte) {
    constexpr int from = first + high * (byte.value * (8 / low) + part), to = 8 * byte.value + low;
    const typename V::I mask = V::set(static_cast<int32_t>(((1u << high) - 1) << to));
    const typename V::I lowered = V::template right<(from > to ? from - to : 0)>(words);
    const typename V::I moved = V::template left<(to > from ? to - from : 0)>(lowered);
    bytes = V::or_(bytes, V::and_(moved, mask));
  });
  return bytes;
}

template <typename V, int bits>
struct Layout {
  static constexpr int low = low_bits(bits), high = high_bits(bits);
  static constexpr int per_lane = 32 / low;         // codes
  static constexpr int parts = 8 / low;             // byte vectors that a chunk of codes unpacks to
  static constexpr int low_bytes = 4 * V::kLanes;   // of a chunk
  static constexpr int high_bytes = low_bytes * high / low;
  static constexpr int codes = per_lane * V::kLanes;
};

// Where one row's chunk is read, and the factors of its segments: scale_w * scale_x, or scale_w alone.
struct Cursor {
  const uint8_t* low;
  const uint8_t* high;
  const float* factors;
};

// `spread`, of the types below: how many segments share a chunk in equal parts, or else
constexpr int kUneven = 0;   // they do not nest: a table says where every lane lies
constexpr int kLonger = -1;  // one segment spans a power of two of chunks

inline int spread_of(const QMatrix& m, int64_t chunk) {
  const int64_t segment = m.group < kActivationGroup ? m.group : kActivationGroup;
  if (m.groups > 1 && m.group % segment != 0) return kUneven;
  const int64_t chunks = segment / chunk;
  if (segment > chunk) return segment % chunk == 0 && (chunks & (chunks - 1)) == 0 ? kLonger : kUneven;
  return chunk % segment == 0 ? static_cast<int>(chunk / segment) : kUneven;
}

// Factors of the segments that the lanes of a chunk lie in.
template <typename V, int spread>
SLMC_INLINE typename V::F lane_factors(const float* factors, const int32_t* lane_segment) {
  if constexpr (spread != kUneven) {
    return V::template spread_floats<spread == kLonger ? 1 : spread>(factors);
  } else {
    alignas(64) float out[V::kLanes];
    for (int i = 0; i < V::kLanes; ++i) out[i] = factors[lane_segment[i]];
    return V::load(out);
  }
}

// sum + the products of `count` vectors of codes and activations.
template <typename V, int bits, int count>
SLMC_INLINE typename V::I dots(typename V::I sum, const typename V::I* codes, const typename V::I* q) {
  if constexpr (V::kPairs) {
    constexpr int together = V::template kPairsTogether<bits>;
    unrolled<(count + together - 1) / together>([&](auto i) {
      constexpr int from = i.value * together, left = count - from;
      typename V::I pairs = V::template pairs<bits>(codes[from], q[from]);
      unrolled<(left < together ? left : together) - 1>([&](auto j) {
        constexpr int at = from + 1 + j.value;
        pairs = V::add_pairs(pairs, V::template pairs<bits>(codes[at], q[at]));
      });
      sum = V::add_widened(sum, pairs);
    });
  } else {
    unrolled<count>([&](auto j) { sum = V::template dot<bits>(sum, codes[j.value], q[j.value]); });
  }
  return sum;
}

// `chunks` chunks of one segment; `start` is that of the first, which has those of all.
template <typename V, int bits, int rows, int spread, int chunks>
SLMC_INLINE void step8(const Cursor* at, const int8_t* x, const int32_t* start, const int32_t* lane_segment,
                       typename V::F* totals) {
  using L = Layout<V, bits>;
  constexpr int count = chunks * L::parts;
  typename V::I q[count];
  unrolled<count>([&](auto j) { q[j.value] = V::load(x + j.value * L::low_bytes); });
  const typename V::I begin = V::load(start);
  unrolled<rows>([&](auto r) {
    typename V::I codes[count];
    unrolled<chunks>([&](auto c) {
      V::template unpack<bits>(at[r.value].low + c.value * L::low_bytes, at[r.value].high + c.value * L::high_bytes,
                               codes + c.value * L::parts);
    });
    const typename V::I sum = dots<V, bits, count>(begin, codes, q);
    totals[r.value] =
        V::fma(V::to_float(sum), lane_factors<V, spread>(at[r.value].factors, lane_segment), totals[r.value]);
  });
}

template <typename V, int bits, int rows, int spread>
SLMC_INLINE void step32(const Cursor* at, const float* x, const int32_t* lane_segment, typename V::F* totals) {
  using L = Layout<V, bits>;
  typename V::template Words<bits> words[rows];
  typename V::F sums[rows];
  unrolled<rows>([&](auto r) {
    words[r.value].read(at[r.value].low, at[r.value].high);
    sums[r.value] = V::zero();
  });
  unrolled<L::per_lane>([&](auto p) {
    const typename V::F xs = V::load(x + p.value * V::kLanes);
    unrolled<rows>(
        [&](auto r) { sums[r.value] = words[r.value].template multiply<p.value>(xs, sums[r.value]); });
  });
  unrolled<rows>([&](auto r) {
    const typename V::F factor = lane_factors<V, spread>(at[r.value].factors, lane_segment);
    totals[r.value] = V::fma(sums[r.value], factor, totals[r.value]);
  });
}

// total - sum over groups of scale_w * (zero - centre) * sum of x.
template <typename V>
SLMC_INLINE typename V::F less_zeros(const uint16_t* scales, const uint8_t* zeros, const float* sums, int64_t groups,
                                     float centre, typename V::F total) {
  const typename V::F middle = V::set(centre);
  for (int64_t g = 0; g < groups; g += V::kLanes) {
    const int count = groups - g < V::kLanes ? static_cast<int>(groups - g) : V::kLanes;
    const typename V::F offset = V::sub(V::load_bytes_first(zeros + g, count), middle);
    const typename V::F scale = V::load_halves_first(scales + g, count);
    total = V::fnma(V::mul(scale, offset), V::load(sums + g), total);
  }
  return total;
}

// factors[r][s] = scale_w[n + r, group of segment s] * scale_x[s], rows without gaps. scale_x repeats itself behind its
// end for a vector's length, and as much room lies behind the factors.
template <typename V>
__attribute__((noinline)) void fill_factors(const QMatrix& m, const Prepared& p, int64_t t, int64_t n, int64_t rows,
                                            float* factors) {
  const int64_t segments = p.segment_count;
  const auto end_with_zeros = [&] { V::store(factors + rows * segments, V::zero()); };  // short rows read behind
  const float* scale_x = p.scales + t * (segments + V::kLanes);
  const uint16_t* scales = m.scales + n * m.groups;
  if (segments == m.groups) {
    int64_t phase = 0, i = 0;
    for (; i + V::kLanes <= rows * segments; i += V::kLanes) {
      V::store(factors + i, V::mul(V::load_halves(scales + i), V::load(scale_x + phase)));
      phase += V::kLanes;
      while (phase >= segments) phase -= segments;
    }
    const int left = static_cast<int>(rows * segments - i);
    V::store(factors + i, V::mul(V::load_halves_first(scales + i, left), V::load(scale_x + phase)));
    return end_with_zeros();
  }
  for (int64_t r = 0; r < rows; ++r, scales += m.groups)
    for (int64_t g = 0, s = 0; g < m.groups; ++g) {
      const typename V::F scale = V::set(half_to_float(scales[g]));
      const int64_t end = (g + 1) * segments / m.groups;
      for (int64_t i = s; i < end; i += V::kLanes)
        V::store(factors + r * segments + i, V::mul(scale, V::load(scale_x + i)));
      s = end;
    }
  end_with_zeros();
}

}  // namespace
}  // namespace slmc
