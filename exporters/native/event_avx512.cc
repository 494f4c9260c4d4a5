// Products with input-major matrices on AVX-512.
#include "event_kernels.h"
#include "avx512_vector.h"

namespace slmc {

const EventKernels& avx512_event_kernels() {
  static constexpr EventKernels kernels = event_kernels_of<Avx512>();
  return kernels;
}

}  // namespace slmc
