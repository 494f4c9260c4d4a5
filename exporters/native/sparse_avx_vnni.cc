// Products with sparse matrices in tiles of 16 rows on AVX2 with AVX-VNNI.
#include "sparse_shared-inl.h"
#include "kernels.h"
#include "vector_avx2_vnni.h"

namespace slmc::avx_vnni {

const SparseKernels tiles = sparse_kernels_of<WithPlainPatterns<Vector>>();

}  // namespace slmc::avx_vnni
