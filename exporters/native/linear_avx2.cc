// Products with quantised and float16 matrices on AVX2.
#include "linear-inl.h"
#include "kernels.h"
#include "vector_avx2.h"

namespace slmc::avx2 {

const LinearKernels linear = kernels_of<Vector>();

}  // namespace slmc::avx2
