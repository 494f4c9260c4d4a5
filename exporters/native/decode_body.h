// One token times a quantised matrix, for any vector type V: weights stream once, nothing is written but y.
//
// A row is read in chunks of one vector of its low plane. A lane (4 bytes) holds 32 / low codes that follow one
// another, so it lies in one group, and sums stay in their lanes until the row is done:
//
//   integer activations   y[n] = sum over lanes of  scale_x * scale_w * (sum code * q - centre * sum q)
//   float activations     y[n] = sum over lanes of  scale_w * sum (code - centre) * x
//
// Zero points cost one product per group and row:  - scale_w * (zero - centre) * (sum of x over the group).
// Included by one file per instruction set, after its V.
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

template <typename V, int bits>
struct Layout {
  static constexpr int low = low_bits(bits), high = high_bits(bits);
  static constexpr int per_lane = 32 / low;         // codes
  static constexpr int parts = 8 / low;             // byte vectors that a chunk of codes unpacks to
  static constexpr int low_bytes = 4 * V::kLanes;   // of a chunk
  static constexpr int high_bytes = low_bytes * high / low;
  static constexpr int codes = per_lane * V::kLanes;
};

// Where one row is read.
struct Cursor {
  const uint8_t* low;
  const uint8_t* high;
  const uint16_t* scales;
};

// Scales of the groups that the lanes of a chunk lie in: `spread` groups in equal shares, or any mapping where 0.
template <typename V, int spread>
SLMC_INLINE typename V::F lane_scales(const uint16_t* scales, const int32_t* lane_group) {
  if constexpr (spread > 0) {
    return V::template spread_halves<spread>(scales);
  } else {
    alignas(64) float out[V::kLanes];
    for (int i = 0; i < V::kLanes; ++i) out[i] = half_to_float(scales[lane_group[i]]);
    return V::load(out);
  }
}

template <typename V, int bits, int rows, int spread>
SLMC_INLINE void step8(const Cursor* at, const int8_t* x, const int32_t* start, const float* scale_x,
                       const int32_t* lane_group, typename V::F* totals) {
  using L = Layout<V, bits>;
  typename V::I q[L::parts];
  unrolled<L::parts>([&](auto j) { q[j.value] = V::load(x + j.value * L::low_bytes); });
  const typename V::I begin = V::load(start);
  const typename V::F sx = V::load(scale_x);
  unrolled<rows>([&](auto r) {
    typename V::I codes[L::parts];
    V::template unpack<bits>(at[r.value].low, at[r.value].high, codes);
    typename V::I sum = begin;
    unrolled<L::parts>([&](auto j) { sum = V::template dot<bits>(sum, codes[j.value], q[j.value]); });
    const typename V::F sw = lane_scales<V, spread>(at[r.value].scales, lane_group);
    totals[r.value] = V::fma(V::mul(V::to_float(sum), sx), sw, totals[r.value]);
  });
}

template <typename V, int bits, int rows, int spread>
SLMC_INLINE void step32(const Cursor* at, const float* x, const int32_t* lane_group, typename V::F* totals) {
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
    totals[r.value] = V::fma(sums[r.value], lane_scales<V, spread>(at[r.value].scales, lane_group), totals[r.value]);
  });
}

// sum over groups of scale_w * (zero - centre) * sum of x.
template <typename V>
float zero_share(const QMatrix& m, int64_t n, const float* sums) {
  const uint16_t* scales = m.scales + n * m.groups;
  const uint8_t* zeros = m.zeros + n * m.groups;
  const typename V::F centre = V::set(static_cast<float>(m.centre()));
  typename V::F total = V::zero();
  int64_t g = 0;
  for (; g + V::kLanes <= m.groups; g += V::kLanes)
    total = V::fma(V::mul(V::load_halves(scales + g), V::sub(V::load_bytes(zeros + g), centre)), V::load(sums + g),
                   total);
  float rest = 0;
  for (; g < m.groups; ++g)
    rest += half_to_float(scales[g]) * static_cast<float>(zeros[g] - m.centre()) * sums[g];
  return V::sum(total) + rest;
}

// Rows n .. n + rows - 1 of one token.
template <typename V, int bits, int rows, int spread, bool integer>
SLMC_INLINE void decode_rows(const QMatrix& m, const Prepared& p, int64_t t, int64_t n, float* y) {
  using L = Layout<V, bits>;
  const int64_t row_bytes = m.row_bytes(), high_row_bytes = m.high_row_bytes();
  const int64_t whole = m.padded() / L::codes;
  const int64_t chunks = (m.padded() + L::codes - 1) / L::codes;
  const int8_t* q = p.quantised + t * chunks * L::codes;
  const int32_t* start = p.start + t * chunks * V::kLanes;
  const float* scale_x = p.scales + t * chunks * V::kLanes;
  const float* x = p.padded + t * chunks * L::codes;
  typename V::F totals[rows];
  unrolled<rows>([&](auto r) { totals[r.value] = V::zero(); });

  const auto step = [&](const Cursor* at, int64_t c) __attribute__((always_inline)) {
    const int32_t* lane_group = spread ? nullptr : p.lane_group + c * V::kLanes;
    if constexpr (integer)
      step8<V, bits, rows, spread>(at, q + c * L::codes, start + c * V::kLanes, scale_x + c * V::kLanes, lane_group,
                                   totals);
    else
      step32<V, bits, rows, spread>(at, x + c * L::codes, lane_group, totals);
  };

  const uint8_t* low = m.codes + n * row_bytes;
  const uint8_t* high = m.high + n * high_row_bytes;
  const uint16_t* scales = m.scales + n * m.groups;
  for (int64_t c = 0; c < whole; ++c) {
    Cursor at[rows];
    unrolled<rows>([&](auto r) {
      at[r.value] = {low + r.value * row_bytes + c * L::low_bytes, high + r.value * high_row_bytes + c * L::high_bytes,
                     scales + r.value * m.groups + p.first_group[c]};
      V::prefetch(at[r.value].low);
    });
    step(at, c);
  }
  if (whole < chunks) {  // the rest of each row, so that nothing behind the last row is touched
    alignas(64) uint8_t low_rest[rows][L::low_bytes] = {};
    alignas(64) uint8_t high_rest[rows][L::low_bytes] = {};
    alignas(64) uint16_t scale_rest[rows][2 * V::kLanes] = {};
    const int64_t low_left = row_bytes - whole * L::low_bytes, high_left = high_row_bytes - whole * L::high_bytes;
    const int64_t groups_left = m.groups - p.first_group[whole];
    Cursor at[rows];
    unrolled<rows>([&](auto r) {
      constexpr int i = r.value;
      std::memcpy(low_rest[i], low + i * row_bytes + whole * L::low_bytes, low_left);
      if (L::high) std::memcpy(high_rest[i], high + i * high_row_bytes + whole * L::high_bytes, high_left);
      std::memcpy(scale_rest[i], scales + i * m.groups + p.first_group[whole], groups_left * sizeof(uint16_t));
      at[i] = {low_rest[i], high_rest[i], scale_rest[i]};
    });
    step(at, whole);
  }
  unrolled<rows>([&](auto r) {
    float total = V::sum(totals[r.value]);
    if (m.zeros) total -= zero_share<V>(m, n + r.value, p.sums + t * m.groups);
    y[t * m.N + n + r.value] = total;
  });
}

constexpr int kRowsAtOnce = 4;

template <typename V, int bits, int spread, bool integer>
void decode_range(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last) {
  int64_t n = first;
  for (; n + kRowsAtOnce <= last; n += kRowsAtOnce)
    for (int64_t t = 0; t < p.tokens; ++t) decode_rows<V, bits, kRowsAtOnce, spread, integer>(m, p, t, n, y);
  for (; n < last; ++n)
    for (int64_t t = 0; t < p.tokens; ++t) decode_rows<V, bits, 1, spread, integer>(m, p, t, n, y);
}

// How many groups share a chunk in equal parts; 1 where a group spans chunks; 0 where they do not nest.
inline int groups_per_chunk(const QMatrix& m, int64_t chunk) {
  if (m.groups == 1 || m.group % chunk == 0) return 1;
  return chunk % m.group == 0 ? static_cast<int>(chunk / m.group) : 0;
}

template <typename V, int bits, bool integer>
void decode_bits(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last) {
  switch (groups_per_chunk(m, Layout<V, bits>::codes)) {
    case 1: return decode_range<V, bits, 1, integer>(m, p, y, first, last);
    case 2: return decode_range<V, bits, 2, integer>(m, p, y, first, last);
    case 4: return decode_range<V, bits, 4, integer>(m, p, y, first, last);
    case 8:
      if constexpr (V::kLanes >= 8) return decode_range<V, bits, 8, integer>(m, p, y, first, last);
      [[fallthrough]];
    case 16:
      if constexpr (V::kLanes >= 16) return decode_range<V, bits, 16, integer>(m, p, y, first, last);
      [[fallthrough]];
    default: return decode_range<V, bits, 0, integer>(m, p, y, first, last);
  }
}

}  // namespace
}  // namespace slmc
