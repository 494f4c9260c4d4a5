// Products on AVX2 with AVX-VNNI: processors without AVX-512 that have integer products of bytes.
#define SLMC_VPDPBUSD "%{vex%} vpdpbusd"
#include "avx2_vector.h"
#include "shared_tiles_body.h"

namespace slmc {

const LinearKernels& avx_vnni_kernels() {
  static constexpr LinearKernels kernels = kernels_of<Avx2>();
  return kernels;
}

const SparseKernels& avx_vnni_sparse_tile_kernels() {
  static constexpr SparseKernels kernels = sparse_kernels_of<Avx2>();
  return kernels;
}

}  // namespace slmc
