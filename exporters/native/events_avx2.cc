// Products with input-major matrices on AVX2.
#include "event_panels-inl.h"
#include "kernels.h"
#include "vector_avx2.h"

namespace slmc::avx2 {

const EventKernels events = event_kernels_of<Vector>();

}  // namespace slmc::avx2
