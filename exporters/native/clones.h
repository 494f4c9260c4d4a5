// Bodies that compilers vectorise, compiled once per instruction set; a call runs that of isa().
#pragma once
#include "elementary.h"
#include "isa.h"

namespace slmc {
namespace {

// `body` is always inlined; its result is the same in all.
#if defined(__x86_64__)
template <auto body, typename... Arguments>
__attribute__((target("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi,bmi2,f16c"))) auto on_avx512(
    Arguments... arguments) {
  return body(arguments...);
}

template <auto body, typename... Arguments>
__attribute__((target("avx2,fma,bmi,bmi2,f16c"))) auto on_avx2(Arguments... arguments) {
  return body(arguments...);
}
#endif

template <auto body, typename... Arguments>
auto dispatched(Arguments... arguments) {
#if defined(__x86_64__)
  if (isa() == kAvx512) return on_avx512<body>(arguments...);
  if (isa() != kPortable) return on_avx2<body>(arguments...);
#endif
  return body(arguments...);
}

}  // namespace
}  // namespace slmc
