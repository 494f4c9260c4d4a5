// The instruction set, detected once; the C functions tell and, for tests, lower it.
#include "isa.h"

#include "elementary.h"

#include <atomic>

namespace slmc {
namespace {

Isa detected() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c"))
    return kPortable;
  const bool wide = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
                    __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("gfni");
  return wide ? kWideVector : kVector;
#elif defined(__aarch64__)
  return kVector;
#else
  return kPortable;
#endif
}

std::atomic<int> forced{-1};

}  // namespace

Isa isa() {
  static const Isa best = detected();
  const int limit = forced.load(std::memory_order_relaxed);
  return limit < 0 || limit > best ? best : static_cast<Isa>(limit);
}

}  // namespace slmc

extern "C" {

SLMC_EXPORT int slmc_isa_level(void) { return slmc::isa(); }

SLMC_EXPORT const char* slmc_isa_name(void) {
#if defined(__aarch64__)
  static const char* const names[] = {"portable", "neon", "neon"};
#else
  static const char* const names[] = {"portable", "avx2", "avx512"};
#endif
  return names[slmc::isa()];
}

// Levels above what the processor has mean the best that it has; a negative one lifts the limit.
SLMC_EXPORT void slmc_force_isa(int level) {
  slmc::forced.store(level, std::memory_order_relaxed);
}

}  // extern "C"
