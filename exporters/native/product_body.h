// Many tokens times a matrix: a tile of weights is unpacked once into a panel, then multiplied with every token.
//
// A panel has one vector per step along K and vector of rows: lane i belongs to output feature n0 + i. Rows of packed
// codes become such vectors by transposing words of 4 bytes before they are unpacked, 16 bytes of every row at a time.
//
//   integer    y[t, n] += scale_x[t, s] * scale_w[n, g] * (sum code * q - centre * sum q)     per segment s of group g
//   float      y[t, n] += sum x[t, k] * w[n, k]
#pragma once
#include "activations_body.h"

namespace slmc {
namespace {

constexpr int kUnit = 128;          // codes of a row that are transposed together
constexpr int kIntegerBlock = 1024; // codes of a panel: it stays in the first-level cache
constexpr int kFloatBlock = 256;

// The planes of `V::kLanes` rows, the last one repeated where the matrix ends; short units are copied and padded. Rows
// of a tile have their words side by side already.
template <typename V>
class Rows {
 public:
  Rows(const uint8_t* plane, int64_t row_bytes, int64_t n, int64_t N, int64_t tiled) : row_bytes_(row_bytes) {
    if (n < tiled) {
      words_ = plane + n / kTile * kTile * row_bytes + n % kTile * 4;
      return;
    }
    for (int i = 0; i < V::kLanes; ++i) rows_[i] = plane + (n + i < N ? n + i : N - 1) * row_bytes;
  }

  // out[d] has word d of the 16 * count bytes at `offset` in every row.
  template <int count>
  SLMC_INLINE void transposed(int64_t offset, typename V::I* out) const {
    if (words_) {
      unrolled<4 * count>([&](auto d) {
        const int64_t at = offset + 4 * d.value;
        out[d.value] = at < row_bytes_ ? V::load(words_ + at * kTile) : V::set(int32_t{0});
      });
      return;
    }
    if (offset + 16 * count <= row_bytes_) {
      unrolled<count>([&](auto i) { V::transpose(rows_, offset + 16 * i.value, out + 4 * i.value); });
      return;
    }
    uint8_t copy[V::kLanes][16 * count] = {};
    const uint8_t* copies[V::kLanes];
    for (int i = 0; i < V::kLanes; ++i) {
      std::memcpy(copy[i], rows_[i] + offset, row_bytes_ - offset);
      copies[i] = copy[i];
    }
    unrolled<count>([&](auto i) { V::transpose(copies, 16 * i.value, out + 4 * i.value); });
  }

 private:
  const uint8_t* rows_[V::kLanes];
  const uint8_t* words_ = nullptr;
  int64_t row_bytes_;
};

// body(word of low plane, word of high plane, Index<its first bit in there>, Index<first code>) per word of a unit.
template <typename V, int bits, typename Body>
SLMC_INLINE void over_words(const Rows<V>& low_rows, const Rows<V>& high_rows, int64_t k, const Body& body) {
  using L = Layout<V, bits>;
  typename V::I words[4 * L::low];
  typename V::I more[4 * L::high + 1];
  low_rows.template transposed<L::low>(k * L::low / 8, words);
  if constexpr (L::high > 0) high_rows.template transposed<L::high>(k * L::high / 8, more);
  unrolled<4 * L::low>([&](auto l) {
    constexpr int first = l.value * L::per_lane * L::high;
    body(words[l.value], more[first / 32], Index<first % 32>{}, Index<l.value * L::per_lane>{});
  });
}

// scale_w, or scale_w * (zero - centre), of the tile's rows in group g.
template <typename V>
void scales_of(const QMatrix& m, int64_t n, int rows, int64_t g, float* scales, float* zero_shares) {
  for (int i = 0; i < rows; ++i) {
    const int64_t at = m.factor_at(n + i < m.N ? n + i : m.N - 1, g);
    scales[i] = V::half(m.scales[at]);
    if (zero_shares) zero_shares[i] = scales[i] * static_cast<float>(m.zeros[at] - m.centre());
  }
}

template <typename V>
SLMC_INLINE typename V::F load_rows(const float* y, int64_t left) {
  return left >= V::kLanes ? V::load(y) : V::load_first(y, left > 0 ? static_cast<int>(left) : 0);
}

template <typename V>
SLMC_INLINE void store_rows(float* y, typename V::F v, int64_t left) {
  if (left >= V::kLanes) return V::store(y, v);
  if (left > 0) V::store_first(y, v, static_cast<int>(left));
}

// A tile of an output: y points at its first feature of its first token.
struct Tile {
  float* y;
  int64_t stride, rows;
  bool begin;  // nothing was summed before
};

template <typename V, int bits>
struct IntegerPanel {
  static constexpr int kRowVectors = V::kRowVectors8, kRows = kRowVectors * V::kLanes;
  alignas(64) uint8_t codes[kIntegerBlock * kRows];                   // [step][row vector][lane][byte]
  alignas(64) float scales[kIntegerBlock / 32][kRows];
  alignas(64) float zero_shares[kIntegerBlock / 32][kRows];

  void fill(const QMatrix& m, int64_t n, int64_t k0, int64_t k1) {
    using L = Layout<V, bits>;
    const typename V::I mask = V::set(static_cast<int32_t>(((1u << L::low) - 1) % 255 * 0x01010101u));
    for (int r = 0; r < kRowVectors; ++r) {
      const Rows<V> low(m.codes, m.row_bytes(), n + r * V::kLanes, m.N, m.tiled);
      const Rows<V> high(m.high, m.high_row_bytes(), n + r * V::kLanes, m.N, m.tiled);
      for (int64_t k = k0; k < k1; k += kUnit) {
        uint8_t* out = codes + (k - k0) * kRows + r * 4 * V::kLanes;
        const auto unpack = [&](auto word, auto more, auto bit, auto code) SLMC_LAMBDA {
          unrolled<L::parts>([&](auto j) {
            typename V::I bytes = word;
            if constexpr (L::low < 8) bytes = V::and_(V::template right<L::low * j.value>(word), mask);
            if constexpr (L::high > 0)
              bytes = V::template add_high_rows<L::low, L::high, j.value, bit.value>(bytes, more);
            if constexpr (bits == 8 && V::kSignedCodes8) bytes = V::flip_signs(bytes);
            V::store(out + (code.value / 4 + j.value) * kRows * 4, bytes);
          });
        };
        over_words<V, bits>(low, high, k, unpack);
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
      for (int64_t k = segment.first; k < segment.first + segment.length; k += 4, w += 4 * kRows) {
        typename V::I ws[kRowVectors];
        unrolled<kRowVectors>([&](auto r) { ws[r.value] = V::load(w + r.value * 4 * V::kLanes); });
        unrolled<tokens>([&](auto i) {
          const typename V::I x = V::broadcast(q + i.value * padded + k);
          unrolled<kRowVectors>([&](auto r) {
            sum[i.value][r.value] = V::template dot<bits>(sum[i.value][r.value], ws[r.value], x);
          });
        });
      }
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

  template <int most>
  void multiply_some(int64_t tokens, const Prepared& p, int64_t padded, int64_t t, int64_t s0, int64_t s1,
                     Tile tile) const {
    if (tokens >= most) return multiply<most>(p, padded, t, s0, s1, tile);
    if constexpr (most > 1) multiply_some<most - 1>(tokens, p, padded, t, s0, s1, tile);
  }
};

template <typename V, int bits>
void product8(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last) {
  using Panel = IntegerPanel<V, bits>;
  Panel panel;
  for (int64_t n = first; n < last; n += Panel::kRows) {
    for (int64_t s0 = 0, s1; s0 < p.segment_count; s0 = s1) {
      const int64_t k0 = p.segments[s0].first;
      for (s1 = s0; s1 < p.segment_count && p.segments[s1].first + p.segments[s1].length - k0 <= kIntegerBlock; ++s1)
        scales_of<V>(m, n, Panel::kRows, p.segments[s1].group, panel.scales[s1 - s0],
                  m.zeros ? panel.zero_shares[s1 - s0] : nullptr);
      panel.fill(m, n, k0, p.segments[s1 - 1].first + p.segments[s1 - 1].length);
      for (int64_t t = 0; t < p.tokens; t += V::kTokens8)
        panel.template multiply_some<V::kTokens8>(p.tokens - t, p, m.padded(), t, s0, s1,
                                                  {y + t * m.N + n, m.N, last - n, s0 == 0});
    }
  }
}

// Weights as floats, [k][row vector][lane].
template <typename V>
struct FloatPanel {
  static constexpr int kRowVectors = V::kRowVectors32, kRows = kRowVectors * V::kLanes;
  alignas(64) float w[(kFloatBlock + kUnit) * kRows];

  template <int bits>
  void fill(const QMatrix& m, int64_t n, int64_t k0, int64_t k1) {
    using L = Layout<V, bits>;
    const typename V::I mask = V::set((1 << L::low) - 1), more_mask = V::set((1 << L::high) - 1);
    for (int r = 0; r < kRowVectors; ++r) {
      const Rows<V> low(m.codes, m.row_bytes(), n + r * V::kLanes, m.N, m.tiled);
      const Rows<V> high(m.high, m.high_row_bytes(), n + r * V::kLanes, m.N, m.tiled);
      int64_t known = -1;
      typename V::F scale = V::zero(), zero = V::set(static_cast<float>(m.centre()));
      for (int64_t k = k0; k < k1; k += kUnit) {
        float* out = w + (k - k0) * kRows + r * V::kLanes;
        const auto unpack = [&](auto word, auto more, auto bit, auto code) SLMC_LAMBDA {
          if constexpr (code.value % 32 == 0) {
            const int64_t g = (k + code.value) / m.group < m.groups ? (k + code.value) / m.group : m.groups - 1;
            if (g != known) {
              alignas(64) float scales[V::kLanes], shares[V::kLanes];
              scales_of<V>(m, n + r * V::kLanes, V::kLanes, g, scales, nullptr);
              scale = V::load(scales);
              if (m.zeros) {
                for (int i = 0; i < V::kLanes; ++i) {
                  const int64_t row = n + r * V::kLanes + i;
                  shares[i] = m.zeros[m.factor_at(row < m.N ? row : m.N - 1, g)];
                }
                zero = V::load(shares);
              }
              known = g;
            }
          }
          unrolled<L::per_lane>([&](auto p) {
            typename V::I codes = V::and_(V::template right<L::low * p.value>(word), mask);
            if constexpr (L::high > 0)
              codes = V::or_(codes, V::template left<L::low>(V::and_(
                                        V::template right<bit.value + L::high * p.value>(more), more_mask)));
            V::store(out + (code.value + p.value) * kRows, V::mul(V::sub(V::to_float(codes), zero), scale));
          });
        };
        over_words<V, bits>(low, high, k, unpack);
      }
    }
  }

  void fill(const HalfMatrix& m, int64_t n, int64_t k0, int64_t k1) {
    const auto* plane = reinterpret_cast<const uint8_t*>(m.w);
    for (int r = 0; r < kRowVectors; ++r) {
      const Rows<V> rows(plane, 2 * m.K, n + r * V::kLanes, m.N, 0);
      for (int64_t k = k0; k < k1; k += 8) {
        typename V::I words[4];
        rows.template transposed<1>(2 * k, words);
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
