// Products with quantised and float16 matrices on AVX-512 with VNNI and VBMI.
#include "avx512_vector.h"
#include "event_kernels.h"
#include "shared_tiles_body.h"

namespace slmc {

const LinearKernels& avx512_kernels() {
  static constexpr LinearKernels kernels = kernels_of<Avx512>();
  return kernels;
}

const SparseKernels& avx512_sparse_tile_kernels() {
  static constexpr SparseKernels kernels = sparse_kernels_of<Avx512>();
  return kernels;
}

const EventKernels& avx512_event_kernels() {
  static constexpr EventKernels kernels = event_kernels_of<Avx512>();
  return kernels;
}

}  // namespace slmc
