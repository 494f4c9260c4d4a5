// Products with quantised and float16 matrices on AVX2 with AVX-VNNI.
#include "linear-inl.h"
#include "kernels.h"
#include "vector_avx2_vnni.h"

namespace slmc::avx_vnni {

const LinearKernels linear = kernels_over<Vector, &avx2::linear>();

}  // namespace slmc::avx_vnni
