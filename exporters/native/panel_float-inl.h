// Many tokens times a matrix in floats: a tile of weights is decoded once into a panel, then used for every token.
//
//   y[t, n] += sum x[t, k] * w[n, k]
#pragma once
#include <algorithm>

#include "rows-inl.h"

namespace slmc {
namespace {

constexpr int kFloatBlock = 256;

// Weights as floats, [k][row vector][lane].
template <typename V>
struct FloatPanel {
  static constexpr int kRowVectors = V::kRowVectors32, kRows = kRowVectors * V::kLanes;
  alignas(64) float w[(kFloatBlock + kUnit) * kRows];

  template <int bits, bool table>
  void fill(const QMatrix& m, const Steps* steps, int64_t n, int64_t k0, int64_t k1) {
    using L = Layout<V, bits>;
    const typename V::I mask = V::set((1 << L::low) - 1), more_mask = V::set((1 << L::high) - 1);
    for (int r = 0; r < kRowVectors; ++r) {
      const Rows<V> low(m.codes, m.row_bytes(), n + r * V::kLanes, m.N, m.tiled);
      const Rows<V> high(m.high, m.high_row_bytes(), n + r * V::kLanes, m.N, m.tiled);
      int64_t known = -1;
      typename V::F scale = V::zero(), zero = V::zero();
      for (int64_t k = k0; k < k1; k += kUnit) {
        float* out = w + (k - k0) * kRows + r * V::kLanes;
        const auto unpack = [&](auto word, auto more, auto bit, auto code, int block) SLMC_LAMBDA {
          if (code.value == 0 || (code.value == 16 && m.group == 16)) {
            const int64_t g = std::min((k + block + code.value) / m.group, m.groups - 1);
            if (g != known) {
              const Factors of_group = factors(m, n + r * V::kLanes, g);
              scale = of_group.scale;
              zero = of_group.zero;
              known = g;
            }
          }
          if constexpr (table) {
            StepWords<V, bits> words;
            words.take(word, V::template right<bit.value>(more), *steps);
            unrolled<L::per_lane>([&](auto p) {
              V::store(out + (block + code.value + p.value) * kRows, words.template multiply<p.value>(scale, V::zero()));
            });
            return;
          }
          unrolled<L::per_lane>([&](auto p) {
            typename V::I codes = V::and_(V::template right<L::low * p.value>(word), mask);
            if constexpr (L::high > 0)
              codes = V::or_(codes, V::template left<L::low>(V::and_(
                                        V::template right<bit.value + L::high * p.value>(more), more_mask)));
            V::store(out + (block + code.value + p.value) * kRows, V::mul(V::sub(V::to_float(codes), zero), scale));
          });
        };
        over_words<V, bits>(low, high, k, unpack);
      }
    }
  }

  struct Factors {
    typename V::F scale, zero;
  };

  // Of rows n .. n + V::kLanes - 1 in group g.
  static SLMC_COLD Factors factors(const QMatrix& m, int64_t n, int64_t g) {
    alignas(64) float scales[V::kLanes], zeros[V::kLanes];
    scales_of<V>(m, n, V::kLanes, g, scales, nullptr);
    for (int i = 0; i < V::kLanes; ++i)
      zeros[i] = static_cast<float>(m.zeros ? m.zeros[m.factor_at(n + i < m.N ? n + i : m.N - 1, g)] : m.centre());
    return {V::load(scales), V::load(zeros)};
  }

  void fill(const HalfMatrix& m, int64_t n, int64_t k0, int64_t k1) {
    const auto* plane = reinterpret_cast<const uint8_t*>(m.w);
    for (int r = 0; r < kRowVectors; ++r) {
      const Rows<V> rows(plane, 2 * m.K, n + r * V::kLanes, m.N, 0);
      for (int64_t k = k0; k < k1; k += 8) {
        typename V::I words[4];
        rows.transposed(2 * k, 1, words);
        for (int d = 0; d < 4; ++d) {
          float* out = w + (k - k0 + 2 * d) * kRows + r * V::kLanes;
          V::store(out, V::low_half(words[d]));
          V::store(out + kRows, V::low_half(V::template right<16>(words[d])));
        }
      }
    }
  }

  // x [tokens, K]; the panel covers k0 .. k1.
  template <int tokens>
  SLMC_INLINE void multiply(const float* x, int64_t K, int64_t k0, int64_t k1, Tile tile) const {
    typename V::F total[tokens][kRowVectors];
    unrolled<tokens>([&](auto i) {
      unrolled<kRowVectors>([&](auto r) {
        total[i.value][r.value] = tile.begin ? V::zero()
                                             : load_rows<V>(tile.y + i.value * tile.stride + r.value * V::kLanes,
                                                            tile.rows - r.value * V::kLanes);
      });
    });
    const float* at = w;
    for (int64_t k = k0; k < k1; ++k, at += kRows) {
      typename V::F ws[kRowVectors];
      unrolled<kRowVectors>([&](auto r) { ws[r.value] = V::load(at + r.value * V::kLanes); });
      unrolled<tokens>([&](auto i) {
        const typename V::F xs = V::set(x[i.value * K + k]);
        unrolled<kRowVectors>(
            [&](auto r) { total[i.value][r.value] = V::fma(ws[r.value], xs, total[i.value][r.value]); });
      });
    }
    unrolled<tokens>([&](auto i) {
      unrolled<kRowVectors>([&](auto r) {
        store_rows<V>(tile.y + i.value * tile.stride + r.value * V::kLanes, total[i.value][r.value],
                      tile.rows - r.value * V::kLanes);
      });
    });
  }

  template <int most>
  void multiply_some(int64_t tokens, const float* x, int64_t K, int64_t k0, int64_t k1, Tile tile) const {
    if (tokens >= most) return multiply<most>(x, K, k0, k1, tile);
    if constexpr (most > 1) multiply_some<most - 1>(tokens, x, K, k0, k1, tile);
  }

  void multiply_all(const float* x, int64_t tokens, int64_t K, int64_t k0, int64_t k1, float* y, int64_t N, int64_t n,
                    int64_t rows) const {
    for (int64_t t = 0; t < tokens; t += V::kTokens32)
      multiply_some<V::kTokens32>(tokens - t, x + t * K, K, k0, k1, {y + t * N + n, N, rows, k0 == 0});
  }
};

// fill(panel, n, k0, k1) unpacks; then every token.
template <typename V, typename Fill>
void product32(int64_t N, int64_t K, const float* x, int64_t tokens, float* y, int64_t first, int64_t last,
               const Fill& fill) {
  FloatPanel<V> panel;
  for (int64_t n = first; n < last; n += FloatPanel<V>::kRows)
    for (int64_t k0 = 0; k0 < K; k0 += kFloatBlock) {
      const int64_t k1 = k0 + kFloatBlock < K ? k0 + kFloatBlock : K;
      fill(panel, n, k0, k1);
      panel.multiply_all(x, tokens, K, k0, k1, y, N, n, last - n);
    }
}

}  // namespace
}  // namespace slmc
