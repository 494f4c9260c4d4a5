// Products with input-major matrices on NEON.
#include "event_panels-inl.h"
#include "kernels.h"
#include "vector_neon.h"

namespace slmc::neon {

const EventKernels events = event_kernels_of<Vector>();

}  // namespace slmc::neon
