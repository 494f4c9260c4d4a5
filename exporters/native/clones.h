// Bodies that compilers vectorise, compiled once per instruction set; a call runs that of isa().
#pragma once
#include "elementary.h"
#include "isa.h"

namespace slmc {
namespace {

constexpr int64_t kDotLanes = 16;

// Sixteen partial sums, the same on every instruction set, added up in pairs; b may be of a narrower type.
template <typename T, typename Other>
SLMC_INLINE T lane_dot(const T* a, const Other* b, int64_t n) {
  T part[kDotLanes] = {};
  int64_t i = 0;
  for (; i + kDotLanes <= n; i += kDotLanes)
    for (int64_t lane = 0; lane < kDotLanes; ++lane) part[lane] += a[i + lane] * b[i + lane];
  for (; i < n; ++i) part[i % kDotLanes] += a[i] * b[i];
  for (int64_t half = kDotLanes / 2; half > 0; half /= 2)
    for (int64_t lane = 0; lane < half; ++lane) part[lane] += part[lane + half];
  return part[0];
}

// `body` is always inlined; its result is the same in all.
#if defined(__x86_64__)
#if !defined(SLMC_WITHOUT_AVX512)
template <auto body, typename... Arguments>
__attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi,bmi2,f16c"))) auto on_avx512(
    Arguments... arguments) {
  return body(arguments...);
}
#endif

template <auto body, typename... Arguments>
__attribute__((target("avx2,fma,bmi,bmi2,f16c"))) auto on_avx2(Arguments... arguments) {
  return body(arguments...);
}
#endif

template <auto body, typename... Arguments>
auto dispatched(Arguments... arguments) {
#if defined(__x86_64__)
#if !defined(SLMC_WITHOUT_AVX512)
  if (isa() >= kAvx512) return on_avx512<body>(arguments...);
#endif
  if (isa() != kPortable) return on_avx2<body>(arguments...);
#endif
  return body(arguments...);
}

}  // namespace
}  // namespace slmc
