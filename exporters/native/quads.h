// Matrices in units of four rows ("quads"), as artifacts up to version 0.1 have them where now there are tiles: decoded
// once, when a session is made, to codes of 8 bits in tiles.
#pragma once
#include "sparse.h"

namespace slmc {

// The place, in units, of unit u of row n: unit by unit, row by row of every four; rows behind the last four follow.
SLMC_INLINE int64_t unit_in_quads(const SparseMatrix& m, int64_t n, int64_t u) {
  const int64_t quad = n / 4 * 4;
  return quad + 4 <= m.N ? quad * m.units + 4 * u + n % 4 : n * m.units + u;
}

// As many bytes as the matrix has weights, and its scales.
class DecodedQuads {
 public:
  explicit DecodedQuads(const SparseMatrix& m);
  const QMatrix& matrix() const { return matrix_; }

 private:
  QMatrix matrix_;
  std::vector<uint8_t> codes_;
  std::vector<uint16_t> scales_;
};

}  // namespace slmc
