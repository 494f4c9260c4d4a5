// Attention on AVX2 with products of bytes summed in fours, in the encoding of AVX-VNNI.
#include "attention_avx2-inl.h"
#include "kernels.h"
#include "vector_avx2_vnni.h"

namespace slmc::avx_vnni {

const AttentionKernels attention = attention_kernels_of<AttentionVector256<Vector>>();

}  // namespace slmc::avx_vnni
