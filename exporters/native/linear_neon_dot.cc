// Products on NEON with dot products of bytes (ARMv8.2, optional there, and later).
#include "neon_vector.h"
#include "shared_tiles_body.h"

namespace slmc {

const LinearKernels& neon_dot_kernels() {
  static constexpr LinearKernels kernels = kernels_of<Neon>();
  return kernels;
}

const SparseKernels& neon_dot_sparse_tile_kernels() {
  static constexpr SparseKernels kernels = sparse_kernels_of<Neon>();
  return kernels;
}

}  // namespace slmc
