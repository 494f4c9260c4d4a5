// One token times a quantised matrix, for any vector type V: weights stream once, nothing is written but y.
//
// Four rows are read at once, each from its own quarter of the matrix. So memory sees four long streams, which hardware
// prefetches well and whose page changes do not coincide, instead of one stream in short pieces.
// Included by one file per instruction set, after its V.
#pragma once
#include "decode_steps.h"

namespace slmc {
namespace {

// What all rows of a matrix have in common.
struct Walk {
  int64_t row_bytes, high_row_bytes, segments;
  int64_t whole, chunks;        // chunks that lie wholly inside a row, and all
  int64_t low_rest, high_rest;  // bytes behind the whole chunks
  int64_t apart;                // rows from each of the rows read at once to the next, as is `factors_apart`
  int64_t factors_apart;
  int segment_shift;            // chunks per segment, as a power of two
  const int32_t* first_segment;
  const int32_t* lane_segment;
  int64_t groups;
  float centre;
};

// One token's activations and start values.
struct Input {
  const int8_t* q;
  const int32_t* start;
  const float* x;
  const float* sums;
};

// Where a row begins in the matrix; zeros are null where it is symmetric.
struct Row {
  const uint8_t* low;
  const uint8_t* high;
  const uint16_t* scales;
  const uint8_t* zeros;
};

// The sums of `rows` rows, the first of them given; integer sums are turned to floats every `together` chunks.
template <typename V, int bits, int rows, int spread, bool integer, int together>
SLMC_INLINE void decode_rows(const Walk& walk, const Input& in, const Row& row, const float* factors, float* out) {
  using L = Layout<V, bits>;
  typename V::F totals[rows];
  unrolled<rows>([&](auto r) { totals[r.value] = V::zero(); });
  const auto step = [&](const Cursor* at, int64_t c, auto chunks) SLMC_LAMBDA {
    const int32_t* lane_segment = spread == kUneven ? walk.lane_segment + c * V::kLanes : nullptr;
    if constexpr (integer)
      step8<V, bits, rows, spread, chunks.value>(at, in.q + c * L::codes, in.start + c * V::kLanes, lane_segment, totals);
    else
      step32<V, bits, rows, spread>(at, in.x + c * L::codes, lane_segment, totals);
  };
  const auto segment = [&](int64_t c) SLMC_LAMBDA {
    if constexpr (spread == kUneven) return static_cast<int64_t>(walk.first_segment[c]);
    if constexpr (spread == kLonger) return c >> walk.segment_shift;
    return c * spread;
  };
  Cursor rows_at[rows];
  unrolled<rows>([&](auto r) {
    const int64_t down = r.value * walk.apart;
    rows_at[r.value] = {row.low + down * walk.row_bytes, row.high + down * walk.high_row_bytes,
                        factors + r.value * walk.factors_apart};
  });
  const auto steps = [&](int64_t c, auto chunks) SLMC_LAMBDA {
    Cursor at[rows];
    unrolled<rows>([&](auto r) {
      const Cursor& begin = rows_at[r.value];
      at[r.value] = {begin.low + c * L::low_bytes, begin.high + c * L::high_bytes, begin.factors + segment(c)};
    });
    step(at, c, chunks);
  };
  int64_t c = 0;
  if constexpr (V::kAhead > 0) {
    constexpr int line = 64 / L::low_bytes, at_once = together > line ? together : line;
    for (; c + at_once <= walk.whole; c += at_once) {
      unrolled<rows>([&](auto r) {
        unrolled<at_once / line>([&](auto i) {
          V::prefetch(rows_at[r.value].low + (c + i.value * line) * L::low_bytes + V::kAhead);
        });
        if constexpr (L::high > 0)
          V::prefetch(rows_at[r.value].high + c * L::high_bytes + V::kAhead * L::high / L::low);
      });
      unrolled<at_once / together>([&](auto i) { steps(c + i.value * together, Index<together>{}); });
    }
  }
  for (; c < walk.whole; ++c) steps(c, Index<1>{});
  if (walk.whole < walk.chunks) {  // the rest of each row, so that nothing behind the last row is touched
    alignas(64) uint8_t low_rest[rows][L::low_bytes] = {};
    alignas(64) uint8_t high_rest[rows][L::low_bytes] = {};
    Cursor at[rows];
    unrolled<rows>([&](auto r) {
      constexpr int i = r.value;
      const Cursor& begin = rows_at[i];
      std::memcpy(low_rest[i], begin.low + walk.whole * L::low_bytes, walk.low_rest);
      if (L::high) std::memcpy(high_rest[i], begin.high + walk.whole * L::high_bytes, walk.high_rest);
      at[i] = {low_rest[i], high_rest[i], begin.factors + segment(walk.whole)};
    });
    step(at, walk.whole, Index<1>{});
  }
  if (row.zeros)
    unrolled<rows>([&](auto r) {
      const int64_t at = r.value * walk.apart * walk.groups;
      totals[r.value] =
          less_zeros<V>(row.scales + at, row.zeros + at, in.sums, walk.groups, walk.centre, totals[r.value]);
    });
  if constexpr (rows == 4) {
    float four[4];
    V::sum4(totals, four);
    for (int r = 0; r < 4; ++r) out[r * walk.apart] = four[r];
  } else {
    unrolled<rows>([&](auto r) { out[r.value * walk.apart] = V::sum(totals[r.value]); });
  }
}

constexpr int kRowsAtOnce = 4;
constexpr int64_t kFactorRows = 32;  // of each quarter that factors are made for together

template <typename V>
Walk walk_of(const QMatrix& m, const Prepared& p, int low_bytes, int high_bytes, int codes) {
  Walk walk{};
  walk.row_bytes = m.row_bytes();
  walk.high_row_bytes = m.high_row_bytes();
  walk.segments = p.segment_count;
  walk.whole = m.padded() / codes;
  walk.chunks = (m.padded() + codes - 1) / codes;
  walk.low_rest = walk.row_bytes - walk.whole * low_bytes;
  walk.high_rest = walk.high_row_bytes - walk.whole * high_bytes;
  walk.factors_apart = kFactorRows * p.segment_count + V::kLanes;
  walk.segment_shift = p.segment_shift;
  walk.first_segment = p.first_segment;
  walk.lane_segment = p.lane_segment;
  walk.groups = m.groups;
  walk.centre = static_cast<float>(m.centre());
  return walk;
}

template <typename V, int bits, int spread, bool integer, int together = 1>
void decode_range(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last) {
  using L = Layout<V, bits>;
  Walk walk = walk_of<V>(m, p, L::low_bytes, L::high_bytes, L::codes);
  walk.apart = (last - first) / kRowsAtOnce;
  float* factors = thread_floats(kRowsAtOnce * walk.factors_apart + V::kLanes);
  const auto row = [&](int64_t n) SLMC_LAMBDA {
    return Row{m.codes + n * walk.row_bytes, m.high + n * walk.high_row_bytes, m.scales + n * m.groups,
               m.zeros ? m.zeros + n * m.groups : nullptr};
  };
  const auto input = [&](int64_t t) SLMC_LAMBDA {
    return Input{p.quantised + t * walk.chunks * L::codes, p.start + t * walk.chunks * V::kLanes,
                 p.padded + t * walk.chunks * L::codes, p.sums + t * (m.groups + V::kLanes)};
  };
  for (int64_t n = first; n < first + walk.apart; n += kFactorRows) {
    const int64_t count = first + walk.apart - n < kFactorRows ? first + walk.apart - n : kFactorRows;
    for (int64_t t = 0; t < p.tokens; ++t) {
      for (int64_t r = 0; r < kRowsAtOnce; ++r)
        fill_factors<V>(m, p, t, n + r * walk.apart, count, factors + r * walk.factors_apart);
      const Input in = input(t);
      for (int64_t i = 0; i < count; ++i)
        decode_rows<V, bits, kRowsAtOnce, spread, integer, together>(walk, in, row(n + i), factors + i * walk.segments,
                                                           y + t * m.N + n + i);
    }
  }
  for (int64_t n = first + kRowsAtOnce * walk.apart; n < last; ++n)
    for (int64_t t = 0; t < p.tokens; ++t) {
      fill_factors<V>(m, p, t, n, 1, factors);
      decode_rows<V, bits, 1, spread, integer, together>(walk, input(t), row(n), factors, y + t * m.N + n);
    }
}

template <typename V, int bits, bool integer>
void decode_bits(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last) {
  constexpr int codes = Layout<V, bits>::codes;
  const int spread = spread_of(m, codes);
  const auto run = [&](auto known) {
    if (spread == known.value) decode_range<V, bits, known.value, integer>(m, p, y, first, last);
  };
  run(Index<kUneven>{});
  if constexpr (codes < kActivationGroup) {
    if (integer && V::kPairs && spread == kLonger) {
      if (p.segment_shift == 1) return decode_range<V, bits, kLonger, integer, 2>(m, p, y, first, last);
      if constexpr (codes * 4 <= kActivationGroup)
        if (p.segment_shift == 2) return decode_range<V, bits, kLonger, integer, 4>(m, p, y, first, last);
    }
    run(Index<kLonger>{});
  }
  if constexpr (codes >= 128) run(Index<codes / 128>{});
  if constexpr (codes >= 64) run(Index<codes / 64>{});
  if constexpr (codes >= 32) run(Index<codes / 32>{});
}

}  // namespace
}  // namespace slmc
