// Products with quantised and float16 matrices on AVX-512.
#include "linear-inl.h"
#include "kernels.h"
#include "vector_avx512.h"

namespace slmc::avx512 {

const LinearKernels linear = kernels_of<Vector>();

}  // namespace slmc::avx512
