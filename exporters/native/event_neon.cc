// Products with input-major matrices on NEON.
#include "event_kernels.h"
#include "neon_vector.h"

namespace slmc {

const EventKernels& neon_event_kernels() {
  static constexpr EventKernels kernels = event_kernels_of<Neon>();
  return kernels;
}

}  // namespace slmc
