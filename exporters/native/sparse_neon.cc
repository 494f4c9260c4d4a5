// Products with sparse matrices in tiles of 16 rows on NEON.
#include "sparse_shared-inl.h"
#include "kernels.h"
#include "vector_neon.h"

namespace slmc::neon {

const SparseKernels tiles = sparse_kernels_of<WithPlainPatterns<Vector>>();

}  // namespace slmc::neon
