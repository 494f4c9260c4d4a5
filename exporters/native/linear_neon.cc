// Products with quantised and float16 matrices on NEON.
#include "linear-inl.h"
#include "kernels.h"
#include "vector_neon.h"

namespace slmc::neon {

const LinearKernels linear = kernels_of<Vector>();

}  // namespace slmc::neon
