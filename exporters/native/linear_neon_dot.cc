// Products with quantised and float16 matrices on NEON with dot products.
#include "linear-inl.h"
#include "kernels.h"
#include "vector_neon_dot.h"

namespace slmc::neon_dot {

const LinearKernels linear = kernels_over<Vector, &neon::linear>();

}  // namespace slmc::neon_dot
