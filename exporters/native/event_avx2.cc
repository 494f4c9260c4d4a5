// Products with input-major matrices on AVX2.
#include "event_kernels.h"
#include "avx2_vector.h"

namespace slmc {

const EventKernels& avx2_event_kernels() {
  static constexpr EventKernels kernels = event_kernels_of<Avx2>();
  return kernels;
}

}  // namespace slmc
