// Products with input-major matrices on AVX-512.
#include "event_panels-inl.h"
#include "kernels.h"
#include "vector_avx512.h"

namespace slmc::avx512 {

const EventKernels events = event_kernels_of<Vector>();

}  // namespace slmc::avx512
