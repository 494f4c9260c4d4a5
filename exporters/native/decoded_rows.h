// Rows of a sparse matrix as a dense one of 8 bits, for products of many tokens.
#pragma once
#include "sparse.h"

namespace slmc {

// Some rows at a time, in memory of this thread.
class DecodedRows {
 public:
  DecodedRows(const SparseMatrix& m, const QMatrix& dense) : m_(m), dense_(dense) {
    const int64_t rows = kRowTile * dense.row_bytes(), scales = kRowTile * m.groups * 2;
    arena().reset();
    rows_ = arena().take<uint8_t>(rows + scales + kTile * m.padded() + m.units * kMaskBytes);
    scales_ = reinterpret_cast<uint16_t*>(rows_ + rows);
    tile_ = rows_ + rows + scales;
    masks_ = tile_ + kTile * m.padded();
  }

  // Rows n .. end of a smaller matrix; its output keeps the stride of the whole.
  QMatrix part(int64_t n, int64_t end) {
    for (int64_t row = n; row < end; ++row) {
      const int64_t in_tile = row < m_.tiled ? row % kTile : 0;
      if (in_tile == 0) decode(row);
      take(tile_ + in_tile * m_.padded(), row, row - n);
    }
    QMatrix part = dense_;
    part.codes = rows_ - n * dense_.row_bytes();
    if (m_.tiled) part.scales = scales_ - n * m_.groups;
    return part;
  }

 private:
  static Arena& arena() {
    static thread_local Arena arena;
    return arena;
  }

  // Row n, or the tile that begins there.
  void decode(int64_t n) {
    const bool own = m_.pattern_rows == 1, tile = n < m_.tiled;
    if (m_.patterns && !(own && tile)) masks_of_row(m_, n, masks_);
    if (tile) decode_sparse_tile(m_, n, masks_, tile_);
    else decode_sparse_row(m_, n, m_.patterns ? masks_ : nullptr, tile_);
  }

  void take(const uint8_t* row, int64_t n, int64_t to) {
    const int64_t bytes = dense_.row_bytes(), common = bytes < m_.padded() ? bytes : m_.padded();
    std::memcpy(rows_ + to * bytes, row, common);
    std::memset(rows_ + to * bytes + common, 128, bytes - common);
    for (int64_t g = 0; m_.tiled && g < m_.groups; ++g) scales_[to * m_.groups + g] = m_.scales[m_.factor_at(n, g)];
  }

  const SparseMatrix& m_;
  const QMatrix& dense_;
  uint8_t *rows_, *tile_, *masks_;
  uint16_t* scales_;
};

}  // namespace slmc
