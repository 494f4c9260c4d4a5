// Attention on NEON with dot products.
#include "attention_neon-inl.h"
#include "kernels.h"
#include "vector_neon_dot.h"

namespace slmc::neon_dot {

const AttentionKernels attention = attention_kernels_of<AttentionVectorNeon<Vector>>();

}  // namespace slmc::neon_dot
