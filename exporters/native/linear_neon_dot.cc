// Products on NEON with dot products of bytes (ARMv8.2, optional there, and later).
#include "neon_vector.h"

namespace slmc {

const LinearKernels& neon_dot_kernels() {
  static constexpr LinearKernels kernels = kernels_of<Neon>();
  return kernels;
}

}  // namespace slmc
