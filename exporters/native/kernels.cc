// The tables of kernels, in the order of Isa; that of a level which is left out is empty, and isa() never names it.
#include "kernels.h"

#include "isa.h"

namespace slmc {

const KernelTable& kernels() {
  static constexpr KernelTable tables[] = {
      {&portable::linear, &portable::events, nullptr, &portable::attention},
#if defined(__x86_64__)
      {&avx2::linear, &avx2::events, &avx2::tiles, &avx2::attention},
#if defined(SLMC_WITHOUT_AVX_VNNI)
      {},
#else
      {&avx_vnni::linear, &avx2::events, &avx_vnni::tiles, &avx_vnni::attention},
#endif
#if defined(SLMC_WITHOUT_AVX512VL_VNNI)
      {},
#else
      {&avx512vl_vnni::linear, &avx2::events, &avx512vl_vnni::tiles, &avx512vl_vnni::attention},
#endif
#if defined(SLMC_WITHOUT_AVX512)
      {},
#else
      {&avx512::linear, &avx512::events, &avx512::tiles, &avx512::attention},
#endif
#if defined(SLMC_AMX)
      {&avx512_amx::linear, &avx512::events, &avx512::tiles, &avx512::attention},
#endif
#elif defined(__aarch64__)
      {&neon::linear, &neon::events, &neon::tiles, &neon::attention},
#if defined(SLMC_WITHOUT_NEON_DOT)
      {},
#else
      {&neon_dot::linear, &neon::events, &neon_dot::tiles, &neon_dot::attention},
#endif
#elif defined(__arm__) && __ARM_ARCH >= 7
      {&neon::linear, &neon::events, &neon::tiles, &neon::attention},
#endif
  };
  return tables[isa()];
}

const LinearKernels& linear_kernels(int64_t group, int bits) {
  return fills_words(group, bits) ? *kernels().linear : portable::linear;
}

const AttentionKernels& attention_kernels(int64_t width) {
  return width % 16 == 0 && width <= kWidestHead ? *kernels().attention : portable::attention;
}

}  // namespace slmc
