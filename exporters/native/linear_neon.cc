// Products with quantised and float16 matrices on NEON.
#include "neon_vector.h"
#include "shared_tiles_body.h"

namespace slmc {

const LinearKernels& neon_kernels() {
  static constexpr LinearKernels kernels = kernels_of<Neon>();
  return kernels;
}

const SparseKernels& neon_sparse_tile_kernels() {
  static constexpr SparseKernels kernels = sparse_kernels_of<Neon>();
  return kernels;
}

}  // namespace slmc
