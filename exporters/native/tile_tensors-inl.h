// The planes of one tile as the matrix has them. Rows that lie one after another, as those behind the last tile do, are
// made a tile first. Included by one file per instruction set, with its V.
#pragma once
#include "rows-inl.h"

namespace slmc {
namespace {

// Where the planes of one tile begin, and how many of its rows are the matrix's.
struct TileTensors {
  const uint8_t* low;
  const uint8_t* high;
  const uint16_t* scales;  // [group][row]
  const uint8_t* zeros;    // likewise, null where symmetric
  float* y;
  int rows;
  const struct Steps* steps = nullptr;  // where codes stand for a table's
};

inline TileTensors tile_at(const QMatrix& m, int64_t n, float* y) {
  return {m.codes + n * m.row_bytes(), m.high + n * m.high_row_bytes(), m.scales + n * m.groups,
          m.zeros ? m.zeros + n * m.groups : nullptr, y + n, kTile};
}

// Rows n .. n + 15 of a plane that has them one after another, word by word; the matrix's last row stands for those
// behind it.
template <typename V>
void interleave(const uint8_t* plane, int64_t row_bytes, int64_t n, int64_t N, uint8_t* out) {
  for (int row = 0; row < kTile; row += V::kLanes) {
    const Rows<V> rows(plane, row_bytes, n + row, N, 0);
    for (int64_t offset = 0; offset < row_bytes; offset += 16) {
      typename V::I words[4];
      rows.transposed(offset, 1, words);
      for (int d = 0; d < 4 && offset + 4 * d < row_bytes; ++d)
        V::store(out + (offset + 4 * d) * kTile + row * 4, words[d]);
    }
  }
}

// Bytes that a tile of the matrix takes.
inline int64_t tile_bytes(const QMatrix& m) {
  return ((m.row_bytes() + m.high_row_bytes() + 3 * m.groups) * kTile + 63) / 64 * 64;
}

// Rows from n on that lie one after another, made a tile in `bytes`.
template <typename V>
TileTensors tile_of_rows(const QMatrix& m, int64_t n, float* y, uint8_t* bytes) {
  const int64_t rows = m.N - n < kTile ? m.N - n : kTile;
  const int64_t low = m.row_bytes() * kTile, high = m.high_row_bytes() * kTile;
  auto* scales = reinterpret_cast<uint16_t*>(bytes + low + high);
  uint8_t* zeros = bytes + low + high + 2 * m.groups * kTile;
  interleave<V>(m.codes, m.row_bytes(), n, m.N, bytes);
  if (high) interleave<V>(m.high, m.high_row_bytes(), n, m.N, bytes + low);
  for (int64_t g = 0; g < m.groups; ++g)
    for (int64_t r = 0; r < kTile; ++r) {
      const int64_t from = (n + (r < rows ? r : rows - 1)) * m.groups + g;
      scales[g * kTile + r] = m.scales[from];
      if (m.zeros) zeros[g * kTile + r] = m.zeros[from];
    }
  return {bytes, bytes + low, scales, m.zeros ? zeros : nullptr, y + n, static_cast<int>(rows)};
}

template <typename V>
constexpr int kTileVectors = kTile / V::kLanes;

// body(Index<tile>, Index<vector of its rows>)
template <typename V, int tiles, typename Body>
SLMC_INLINE void over_vectors(const Body& body) {
  unrolled<tiles>([&](auto t) SLMC_LAMBDA {
    unrolled<kTileVectors<V>>([&](auto r) SLMC_LAMBDA { body(t, r); });
  });
}

// Bytes of a tile that are fetched before they are used: of a plane of one or two bits, which is multiplied more slowly
// than it is read, those of the next page, so that the page too is found in time. On x86 half a page on its way gains 9 to
// 15 % beyond the second cache.
template <typename V>
constexpr int kTileAhead = V::kLanes == 4 ? 512 : 2048;
constexpr int kSharedAhead = 1024, kThinAhead = 4096;
constexpr int kScalesAhead = 256;

}  // namespace
}  // namespace slmc
