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

  // Words that are `apart` bytes from one another.
  struct Words {
    const uint8_t* first;
    int64_t apart;
    SLMC_INLINE typename V::I operator[](int i) const { return V::load(first + i * apart); }
  };

  // Those of the 16 * count bytes at `offset` in every row: where they lie, or else in `copy`.
  SLMC_INLINE Words words(int64_t offset, int count, typename V::I* copy) const {
    if (words_ && offset + 16 * count <= row_bytes_) return {words_ + offset * kTile, 4 * kTile};
    transposed(offset, count, copy);
    return {reinterpret_cast<const uint8_t*>(copy), sizeof(typename V::I)};
  }

  // out[d] has word d of them.
  SLMC_COLD void transposed(int64_t offset, int count, typename V::I* out) const {
    if (!words_) {
      for (int i = 0; i < count; ++i) transpose(offset + 16 * i, out + 4 * i);
      return;
    }
    const int64_t left = (row_bytes_ - offset) / 4;
    const int there = left < 4 * count ? static_cast<int>(left) : 4 * count;
    int d = 0;
    for (const uint8_t* at = words_ + offset * kTile; d < there; ++d, at += 4 * kTile) out[d] = V::load(at);
    for (; d < 4 * count; ++d) out[d] = V::set(int32_t{0});
  }

 private:
  SLMC_INLINE void transpose(int64_t offset, typename V::I* out) const {
    if (offset + 16 <= row_bytes_) return V::transpose(rows_, offset, out);
    uint8_t copy[V::kLanes][16] = {};
    const uint8_t* copies[V::kLanes];
    for (int r = 0; r < V::kLanes; ++r) {
      if (offset < row_bytes_) std::memcpy(copy[r], rows_[r] + offset, row_bytes_ - offset);
      copies[r] = copy[r];
    }
    V::transpose(copies, 0, out);
  }

  const uint8_t* rows_[V::kLanes];
  const uint8_t* words_ = nullptr;
  int64_t row_bytes_;
};

// body(word of low plane, word of high plane, Index<its first bit in there>, Index<first code>, first code of the block
// of 32 that they belong to) per word of a unit.
template <typename V, int bits, typename Body>
SLMC_INLINE void over_words(const Rows<V>& low_rows, const Rows<V>& high_rows, int64_t k, const Body& body) {
  using L = Layout<V, bits>;
  typename V::I low_copy[4 * L::low], high_copy[4 * L::high + 1];
  const auto low = low_rows.words(k * L::low / 8, L::low, low_copy);
  typename Rows<V>::Words high = {};
  if constexpr (L::high > 0) high = high_rows.words(k * L::high / 8, L::high, high_copy);
  for (int block = 0; block < kUnit / 32; ++block)
    unrolled<L::low>([&](auto l) SLMC_LAMBDA {
      constexpr int first = l.value * L::per_lane * L::high;
      typename V::I more = V::set(int32_t{0});
      if constexpr (L::high > 0) more = high[block * L::high + first / 32];
      body(low[block * L::low + l.value], more, Index<first % 32>{}, Index<l.value * L::per_lane>{}, 32 * block);
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
