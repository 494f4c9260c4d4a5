// Products with sparse matrices in tiles of 16 rows on AVX2 with VNNI in AVX-512's encoding.
#include "sparse_shared-inl.h"
#include "kernels.h"
#include "vector_avx2_vnni.h"

namespace slmc::avx512vl_vnni {

const SparseKernels tiles = sparse_kernels_of<WithPlainPatterns<Vector>>();

}  // namespace slmc::avx512vl_vnni
