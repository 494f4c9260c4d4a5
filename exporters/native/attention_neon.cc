// Attention on NEON.
#include "attention_neon-inl.h"
#include "kernels.h"

namespace slmc::neon {

const AttentionKernels attention = attention_kernels_of<AttentionVectorNeon<Vector>>();

}  // namespace slmc::neon
