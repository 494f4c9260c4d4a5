// The instruction set, detected once; the C functions tell and, for tests, lower it.
//
// A level is an instruction set or one with dot products: 0 portable, 1 vector, 2 vector and dot products, 3 wide.
#include "isa.h"

#include "elementary.h"

#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace slmc {
namespace {

enum Level : int { kPortableLevel = 0, kVectorLevel = 1, kDotLevel = 2, kWideLevel = 3 };

struct Processor {
  Level best;
  DotProducts dot;
};

#if defined(__x86_64__)
bool has_avx_vnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}

Processor detected() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c"))
    return {kPortableLevel, kNoDot};
  const bool evex = __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  const DotProducts dot = has_avx_vnni() ? kDot : evex ? kDotEvex : kNoDot;
  const bool wide = evex && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
                    __builtin_cpu_supports("gfni");
  return {wide ? kWideLevel : dot ? kDotLevel : kVectorLevel, dot};
}
#elif defined(__aarch64__)
Processor detected() {
#if defined(__linux__)
  constexpr unsigned long kDotProductBit = 1ul << 20;  // HWCAP_ASIMDDP
  if (getauxval(AT_HWCAP) & kDotProductBit) return {kDotLevel, kDot};
#endif
  return {kVectorLevel, kNoDot};
}
#else
Processor detected() { return {kPortableLevel, kNoDot}; }
#endif

const Processor& processor() {
  static const Processor found = detected();
  return found;
}

std::atomic<int> forced{-1};

int level() {
  const int limit = forced.load(std::memory_order_relaxed);
  return limit < 0 || limit > processor().best ? processor().best : limit;
}

}  // namespace

Isa isa() {
  const int now = level();
  return now == kPortableLevel ? kPortable : now == kWideLevel ? kWideVector : kVector;
}

DotProducts dot_products() { return level() >= kDotLevel ? processor().dot : kNoDot; }

}  // namespace slmc

extern "C" {

SLMC_EXPORT int slmc_isa_level(void) { return slmc::level(); }

SLMC_EXPORT const char* slmc_isa_name(void) {
#if defined(__aarch64__)
  static const char* const names[] = {"portable", "neon", "neon-dotprod", "neon-dotprod"};
#else
  static const char* const names[] = {"portable", "avx2", "avx2-vnni", "avx512"};
#endif
  return names[slmc::level()];
}

// Levels above what the processor has mean the best that it has; a negative one lifts the limit.
SLMC_EXPORT void slmc_force_isa(int level) {
  slmc::forced.store(level, std::memory_order_relaxed);
}

}  // extern "C"
