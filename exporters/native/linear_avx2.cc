// Products with quantised and float16 matrices on AVX2 with FMA and F16C.
#include "avx2_vector.h"
#include "shared_tiles_body.h"

namespace slmc {

const LinearKernels& avx2_kernels() {
  static constexpr LinearKernels kernels = kernels_of<Avx2>();
  return kernels;
}

const SparseKernels& avx2_sparse_tile_kernels() {
  static constexpr SparseKernels kernels = sparse_kernels_of<Avx2>();
  return kernels;
}

}  // namespace slmc
