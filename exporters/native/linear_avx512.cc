// Products with quantised and float16 matrices on AVX-512 with VNNI and VBMI.
#include "avx512_vector.h"

namespace slmc {

const LinearKernels& avx512_kernels() {
  static constexpr LinearKernels kernels = kernels_of<Avx512>();
  return kernels;
}

}  // namespace slmc
