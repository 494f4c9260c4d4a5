// Rows of a sparse matrix as a dense one of 8 bits, for products of many tokens.
#pragma once
#include "sparse.h"

namespace slmc {

// Some rows at a time, in memory of this thread.
class DecodedRows {
 public:
  DecodedRows(const SparseMatrix& m, const QMatrix& dense) : m_(m), dense_(dense) {
    const int64_t rows = kRowTile * dense.row_bytes() + m.padded(), scales = kRowTile * m.groups * 2;
    arena().reset();
    rows_ = arena().take<uint8_t>(rows + scales + kTile * m.padded() + m.units * kMaskBytes);
    scales_ = reinterpret_cast<uint16_t*>(rows_ + rows);
    tile_ = rows_ + rows + scales;
    masks_ = tile_ + kTile * m.padded();
  }

  // Rows n .. end of a smaller matrix; its output keeps the stride of the whole.
  QMatrix part(int64_t n, int64_t end) {
    for (int64_t row = n; row < end; ++row) {
      if (row >= m_.tiled) {
        decode_alone(row, row - n);
        continue;
      }
      if (row % kTile == 0) decode_tile(row);
      take(tile_ + row % kTile * m_.padded(), row - n);
    }
    for (int64_t row = n; m_.tiled && row < end; ++row)
      for (int64_t g = 0; g < m_.groups; ++g) scales_[(row - n) * m_.groups + g] = m_.scales[m_.factor_at(row, g)];
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

  void decode_tile(int64_t n) {
    if (m_.words) masks_of_row(m_, n, masks_);
    decode_sparse_tile(m_, n, masks_, tile_);
  }

  // A row that lies in no tile, straight to its place: what it writes behind is the next row's.
  void decode_alone(int64_t n, int64_t to) {
    if (m_.patterns) masks_of_row(m_, n, masks_);
    uint8_t* row = rows_ + to * dense_.row_bytes();
    decode_sparse_row(m_, n, m_.patterns ? masks_ : nullptr, row);
    pad(row);
  }

  void take(const uint8_t* row, int64_t to) {
    const int64_t bytes = dense_.row_bytes();
    std::memcpy(rows_ + to * bytes, row, bytes < m_.padded() ? bytes : m_.padded());
    pad(rows_ + to * bytes);
  }

  void pad(uint8_t* row) const {
    if (dense_.row_bytes() > m_.padded()) std::memset(row + m_.padded(), 128, dense_.row_bytes() - m_.padded());
  }

  const SparseMatrix& m_;
  const QMatrix& dense_;
  uint8_t *rows_, *tile_, *masks_;
  uint16_t* scales_;
};

}  // namespace slmc
