// The same products in AVX-512's encoding on 256-bit registers: processors whose AVX-512 has VNNI but too little else.
// It also runs linear_avx_vnni.cc's code on machines that have the one encoding and not the other.
#define SLMC_VPDPBUSD "%{evex%} vpdpbusd"
#include "avx2_vector.h"
#include "shared_tiles_body.h"

namespace slmc {

const LinearKernels& avx512vl_vnni_kernels() {
  static constexpr LinearKernels kernels = kernels_of<Avx2>();
  return kernels;
}

const SparseKernels& avx512vl_vnni_sparse_tile_kernels() {
  static constexpr SparseKernels kernels = sparse_kernels_of<Avx2>();
  return kernels;
}

}  // namespace slmc
