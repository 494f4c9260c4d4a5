// Products with quantised and float16 matrices on AVX-512 with VNNI and VBMI.
#include "avx512_vector.h"
#include "event_kernels.h"

namespace slmc {

const LinearKernels& avx512_kernels() {
  static constexpr LinearKernels kernels = kernels_of<Avx512>();
  return kernels;
}

const EventKernels& avx512_event_kernels() {
  static constexpr EventKernels kernels = event_kernels_of<Avx512>();
  return kernels;
}

}  // namespace slmc
