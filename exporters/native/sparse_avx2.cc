// Products with sparse matrices in tiles of 16 rows on AVX2.
#include "sparse_shared-inl.h"
#include "kernels.h"
#include "vector_avx2.h"

namespace slmc::avx2 {

const SparseKernels tiles = sparse_kernels_of<WithPlainPatterns<Vector>>();

}  // namespace slmc::avx2
