// Products with sparse matrices in tiles of 16 rows on NEON with dot products.
#include "sparse_shared-inl.h"
#include "kernels.h"
#include "vector_neon_dot.h"

namespace slmc::neon_dot {

const SparseKernels tiles = sparse_kernels_of<WithPlainPatterns<Vector>>();

}  // namespace slmc::neon_dot
