// Products with quantised and float16 matrices on NEON.
#include "neon_vector.h"

namespace slmc {

const LinearKernels& neon_kernels() {
  static constexpr LinearKernels kernels = kernels_of<Neon>();
  return kernels;
}

}  // namespace slmc
