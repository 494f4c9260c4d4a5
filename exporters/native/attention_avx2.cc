// Attention on AVX2.
#include "attention_avx2-inl.h"
#include "kernels.h"

namespace slmc::avx2 {

const AttentionKernels attention = attention_kernels_of<AttentionVector256<Vector>>();

}  // namespace slmc::avx2
