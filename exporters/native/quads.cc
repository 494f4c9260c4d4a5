#include "quads.h"

namespace slmc {

DecodedQuads::DecodedQuads(const SparseMatrix& m) {
  QMatrix& q = matrix_;
  q.N = m.N, q.K = m.K, q.groups = m.groups, q.group = m.group, q.bits = 8;
  q.tiled = m.N / kTile * kTile;
  codes_.resize(q.N * q.row_bytes());
  scales_.resize(q.N * q.groups);
  std::vector<uint8_t> row(m.padded() + q.row_bytes(), 128), masks(m.units * kMaskBytes);
  for (int64_t n = 0; n < q.N; ++n) {
    if (m.patterns) masks_of_row(m, n, masks.data());
    decode_sparse_row(m, n, m.patterns ? masks.data() : nullptr, row.data());
    const bool tiled = n < q.tiled;
    uint8_t* to = codes_.data() + (tiled ? n / kTile * kTile * q.row_bytes() + n % kTile * 4 : n * q.row_bytes());
    for (int64_t k = 0; k < q.row_bytes(); k += 4) std::memcpy(to + k * (tiled ? kTile : 1), row.data() + k, 4);
    for (int64_t g = 0; g < q.groups; ++g) scales_[q.factor_at(n, g)] = m.scales[n * q.groups + g];
  }
  q.codes = codes_.data();
  q.scales = scales_.data();
}

}  // namespace slmc
