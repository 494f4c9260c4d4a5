// Many tokens of 8 bits times a matrix: a tile of weights is unpacked once into a panel, then used for every token.
//
// A panel has one vector per step along K and vector of rows: lane i belongs to output feature n0 + i.
//
//   y[t, n] += scale_x[t, s] * scale_w[n, g] * (sum code * q - centre * sum q)     per segment s of group g
#pragma once
#include "rows-inl.h"

namespace slmc {
namespace {

constexpr int kIntegerBlock = 1024; // codes of a panel: it stays in the first-level cache

// Steps whose products meet in 16 bits before they are widened, where that pays.
template <typename V, int bits>
constexpr int steps_together() {
  if constexpr (!V::kPanelPairs) return 1;
  else return V::template kPairsTogether<bits> >= 8 ? 8 : V::template kPairsTogether<bits> >= 4 ? 4 : 2;
}

// `centred`: codes less the middle of their range, as signed bytes, so that sums need no start.
template <typename V, int bits, bool centred = false>
struct IntegerPanel {
  static constexpr int kBits = bits, kRowVectors = V::kRowVectors8, kRows = kRowVectors * V::kLanes;
  static constexpr int kTogether = steps_together<V, bits>();  // of a segment's, whose number is four or eights
  alignas(64) uint8_t codes[kIntegerBlock * kRows];                   // [step][row vector][lane][byte]
  alignas(64) float scales[kIntegerBlock / 16][kRows];
  alignas(64) float zero_shares[kIntegerBlock / 16][kRows];

  // stored: bits of the matrix's codes; fewer than the panel's where they stand for steps of a table.
  template <int stored>
  void fill(const QMatrix& m, const Steps* steps, int64_t n, int64_t k0, int64_t k1) {
    using L = Layout<V, stored>;
    const typename V::I mask = V::set(static_cast<int32_t>(((1u << L::low) - 1) % 255 * 0x01010101u));
    for (int r = 0; r < kRowVectors; ++r) {
      const Rows<V> low(m.codes, m.row_bytes(), n + r * V::kLanes, m.N, m.tiled);
      const Rows<V> high(m.high, m.high_row_bytes(), n + r * V::kLanes, m.N, m.tiled);
      for (int64_t k = k0; k < k1; k += kUnit) {
        uint8_t* out = codes + (k - k0) * kRows + r * 4 * V::kLanes;
        const auto unpack = [&](auto word, auto more, auto bit, auto code, int block) SLMC_LAMBDA {
          unrolled<L::parts>([&](auto j) {
            typename V::I bytes = word;
            if constexpr (stored != bits) {
              bytes = steps_of<V, stored, j.value, bit.value>(*steps, word, more);
              V::store(out + (block / 4 + code.value / 4 + j.value) * kRows * 4, bytes);
              return;
            }
            if constexpr (L::low < 8) bytes = V::and_(V::template right<L::low * j.value>(word), mask);
            if constexpr (L::high > 0)
              bytes = V::template add_high_rows<L::low, L::high, j.value, bit.value>(bytes, more);
            if constexpr (centred) bytes = V::sub_bytes(bytes, 1 << (bits - 1));
            else if constexpr (stored == 8 && V::kSignedCodes8) bytes = V::flip_signs(bytes);
            V::store(out + (block / 4 + code.value / 4 + j.value) * kRows * 4, bytes);
          });
        };
        over_words<V, stored>(low, high, k, unpack);
      }
    }
  }

  template <int tokens>
  SLMC_INLINE void multiply(const Prepared& p, int64_t padded, int64_t t, int64_t s0, int64_t s1, Tile tile) const {
    typename V::F total[tokens][kRowVectors];
    const int8_t* q = p.quantised + t * padded;
    const int32_t* start = p.start + t * p.segment_count;
    const float* scale_x = p.scales + t * p.segment_count;
    const float* sums = p.sums + t * p.segment_count;
    unrolled<tokens>([&](auto i) {
      unrolled<kRowVectors>([&](auto r) {
        total[i.value][r.value] = tile.begin ? V::zero()
                                             : load_rows<V>(tile.y + i.value * tile.stride + r.value * V::kLanes,
                                                            tile.rows - r.value * V::kLanes);
      });
    });
    for (int64_t s = s0; s < s1; ++s) {
      const Segment segment = p.segments[s];
      const uint8_t* w = codes + (segment.first - p.segments[s0].first) * kRows;
      typename V::I sum[tokens][kRowVectors];
      unrolled<tokens>([&](auto i) {
        unrolled<kRowVectors>([&](auto r) { sum[i.value][r.value] = V::set(start[i.value * p.segment_count + s]); });
      });
      constexpr int inputs = 4 * kTogether;
      if (inputs > 16 && segment.length == 16) add_steps<tokens, 4>(w, q + segment.first, padded, sum);
      else
        for (int64_t k = segment.first; k < segment.first + segment.length; k += inputs, w += inputs * kRows)
          add_steps<tokens, kTogether>(w, q + k, padded, sum);
      unrolled<tokens>([&](auto i) {
        const typename V::F sx = V::set(scale_x[i.value * p.segment_count + s]);
        unrolled<kRowVectors>([&](auto r) {
          typename V::F& out = total[i.value][r.value];
          const typename V::F sw = V::load(scales[s - s0] + r.value * V::kLanes);
          out = V::fma(V::mul(V::to_float(sum[i.value][r.value]), sx), sw, out);
          if (p.sums)
            out = V::fnma(V::set(sums[i.value * p.segment_count + s]),
                          V::load(zero_shares[s - s0] + r.value * V::kLanes), out);
        });
      });
    }
    unrolled<tokens>([&](auto i) {
      unrolled<kRowVectors>([&](auto r) {
        store_rows<V>(tile.y + i.value * tile.stride + r.value * V::kLanes, total[i.value][r.value],
                      tile.rows - r.value * V::kLanes);
      });
    });
  }

  // Adds the products of so many steps, four codes each.
  template <int tokens, int together>
  static SLMC_INLINE void add_steps(const uint8_t* w, const int8_t* q, int64_t padded,
                                    typename V::I (*sum)[kRowVectors]) {
    typename V::Pairs held[tokens][kRowVectors];
    unrolled<together>([&](auto step) {
      typename V::I ws[kRowVectors];
      unrolled<kRowVectors>([&](auto r) {
        ws[r.value] = V::load(w + (step.value * kRowVectors + r.value) * 4 * V::kLanes);
      });
      unrolled<tokens>([&](auto i) {
        const typename V::I x = V::broadcast(q + i.value * padded + 4 * step.value);
        unrolled<kRowVectors>([&](auto r) {
          typename V::Pairs& pairs = held[i.value][r.value];
          typename V::I& to = sum[i.value][r.value];
          if constexpr (!V::kPanelPairs) to = V::template dot<bits>(to, ws[r.value], x);
          else if constexpr (step.value == 0) pairs = V::template pairs<bits>(ws[r.value], x);
          else pairs = V::template add_pairs<bits>(pairs, ws[r.value], x);
        });
      });
    });
    if constexpr (V::kPanelPairs)
      unrolled<tokens>([&](auto i) {
        unrolled<kRowVectors>([&](auto r) {
          sum[i.value][r.value] = V::add_widened(sum[i.value][r.value], held[i.value][r.value]);
        });
      });
  }

  template <int most>
  void multiply_some(int64_t tokens, const Prepared& p, int64_t padded, int64_t t, int64_t s0, int64_t s1,
                     Tile tile) const {
    if (tokens >= most) return multiply<most>(p, padded, t, s0, s1, tile);
    if constexpr (most > 1) multiply_some<most - 1>(tokens, p, padded, t, s0, s1, tile);
  }
};

// body(n, s0, s1) for the panel's rows n and on, filled with the codes and scales of segments s0 .. s1 - 1; stored: as
// of the panel's fill, 0 for its own bits.
template <typename V, int stored = 0, typename Panel, typename Body>
SLMC_INLINE void over_panels(const QMatrix& m, const Prepared& p, int64_t first, int64_t last, Panel& panel,
                             const Body& body, const Steps* steps = nullptr) {
  for (int64_t n = first; n < last; n += Panel::kRows) {
    for (int64_t s0 = 0, s1; s0 < p.segment_count; s0 = s1) {
      const int64_t k0 = p.segments[s0].first;
      for (s1 = s0; s1 < p.segment_count && p.segments[s1].first + p.segments[s1].length - k0 <= kIntegerBlock; ++s1)
        scales_of<V>(m, n, Panel::kRows, p.segments[s1].group, panel.scales[s1 - s0],
                     m.zeros ? panel.zero_shares[s1 - s0] : nullptr);
      const Segment& behind = p.segments[s1 - 1];
      panel.template fill<stored ? stored : Panel::kBits>(m, steps, n, k0, behind.first + behind.length);
      body(n, s0, s1);
    }
  }
}

template <typename V, int bits, int stored = bits>
void product8(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last, const Steps* steps = nullptr) {
  IntegerPanel<V, bits> panel;
  const auto all_tokens = [&](int64_t n, int64_t s0, int64_t s1) {
    for (int64_t t = 0; t < p.tokens; t += V::kTokens8)
      panel.template multiply_some<V::kTokens8>(p.tokens - t, p, m.padded(), t, s0, s1,
                                                {y + t * m.N + n, m.N, last - n, s0 == 0});
  };
  over_panels<V, stored>(m, p, first, last, panel, all_tokens, steps);
}

}  // namespace
}  // namespace slmc
