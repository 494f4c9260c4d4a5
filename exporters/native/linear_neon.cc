// Products with quantised and float16 matrices on NEON.
#include "event_kernels.h"
#include "neon_vector.h"

namespace slmc {

const LinearKernels& neon_kernels() {
  static constexpr LinearKernels kernels = kernels_of<Neon>();
  return kernels;
}

const EventKernels& neon_event_kernels() {
  static constexpr EventKernels kernels = event_kernels_of<Neon>();
  return kernels;
}

}  // namespace slmc
