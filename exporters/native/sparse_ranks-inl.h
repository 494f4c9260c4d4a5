// The ranks of patterns in tiles of 16 rows (exporters/formats/sparse_tiles.py), block by block of four periods.
// Included by one file per instruction set, after its V.
#pragma once
#include "sparse.h"
#include "tile_tensors-inl.h"

namespace slmc {
namespace {

constexpr int rank_bits_of(int kept, int period) {
  int patterns = 1, bits = 0;
  for (int i = 0; i < kept; ++i) patterns = patterns * (period - i) / (i + 1);
  while (1 << bits < patterns) ++bits;
  return bits;
}

template <typename V, int n>
SLMC_INLINE typename V::I moved_right(typename V::I v) {
  if constexpr (n >= 0) return V::template right<n>(v);
  else return V::template left<-n>(v);
}

constexpr int32_t repeated(int byte) { return static_cast<int32_t>(0x01010101u * static_cast<unsigned>(byte)); }

// Where the planes of a unit's ranks lie, and how a block's ranks come out of them.
template <typename V, int kept, int period>
struct Ranks {
  static constexpr int bits = rank_bits_of(kept, period), blocks = kUnitInputs / (4 * period);
  static constexpr bool has4 = bits >= 4, has2 = bits % 4 >= 2, has1 = bits % 2 == 1;
  static constexpr int first2 = has4 ? 4 : 0, first1 = bits - 1;
  static constexpr int at2 = has4 ? blocks / 2 * kTile * 4 : 0, at1 = at2 + (has2 ? blocks / 4 * kTile * 4 : 0);
  static constexpr int bytes = 4 * period == 32 ? kTile * 2 * bits : kTile * 4 * bits;  // of a unit
  using I = typename V::I;

  // Vector r of the tile's rows; bits above the ranks' are others'.
  template <int block, int r>
  static SLMC_INLINE I of(const uint8_t* unit) {
    constexpr int from = r * V::kLanes * 4;
    I ranks = V::set(int32_t{0});
    if constexpr (has4)
      ranks = V::template right<block % 2 * 4>(V::load(unit + block / 2 * kTile * 4 + from));
    if constexpr (has2) {
      const I two = moved_right<V, block % 4 * 2 - first2>(V::load(unit + at2 + block / 4 * kTile * 4 + from));
      ranks = has4 ? V::choose(V::set(repeated((1 << first2) - 1)), ranks, two) : two;
    }
    if constexpr (has1) ranks = V::choose(V::set(repeated((1 << first1) - 1)), ranks, last_bit<block, r>(unit + at1));
    return ranks;
  }

 private:
  template <int block, int r>
  static SLMC_INLINE I last_bit(const uint8_t* plane) {
    constexpr int right = block - first1;
    if constexpr (blocks == 8) return moved_right<V, right>(V::load(plane + r * V::kLanes * 4));
    else if constexpr (V::kLanes == kTile) return V::template paired<right>(plane);
    else return moved_right<V, right + r * V::kLanes / 8 * 4>(V::load(plane + r * V::kLanes % 8 * 4));
  }
};

}  // namespace
}  // namespace slmc
