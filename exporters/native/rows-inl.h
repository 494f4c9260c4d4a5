// Rows of packed codes as vectors with a row in every lane: words of 4 bytes are transposed, 16 bytes of every row at a
// time; and what panels and tiles say of the rows. Included by one file per instruction set, with its V.
#pragma once
#include "activations-inl.h"

namespace slmc {
namespace {

constexpr int kUnit = 128;          // codes of a row that are transposed together

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
  int i = 0;
  for (; i < rows && n + i < m.tiled; i += V::kLanes) {
    const int64_t at = m.factor_at(n + i, g);
    const typename V::F scale = V::load_halves(m.scales + at);
    V::store(scales + i, scale);
    if (!zero_shares) continue;
    const typename V::F zero = V::load_bytes_first(m.zeros + at, V::kLanes);
    V::store(zero_shares + i, V::mul(scale, V::sub(zero, V::set(static_cast<float>(m.centre())))));
  }
  for (; i < rows; ++i) {
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

}  // namespace
}  // namespace slmc
