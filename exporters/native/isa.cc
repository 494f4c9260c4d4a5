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

constexpr int kLevels = 4;

struct Processor {
  Isa levels[kLevels];
  int best;
};

#if defined(__x86_64__)
bool has_avx_vnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}

Processor detected() {
  __builtin_cpu_init();
  const bool vector = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool evex = __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  const Isa dot = has_avx_vnni() ? kAvxVnni : evex ? kAvx512VlVnni : kAvx2;
  const bool wide = evex && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
                    __builtin_cpu_supports("gfni");
  return {{kPortable, kAvx2, dot, kAvx512}, !vector ? 0 : wide ? 3 : dot != kAvx2 ? 2 : 1};
}
#elif defined(__aarch64__)
Processor detected() {
#if defined(__linux__)
  constexpr unsigned long kDotProductBit = 1ul << 20;  // HWCAP_ASIMDDP
  const bool dot = getauxval(AT_HWCAP) & kDotProductBit;
#else
  const bool dot = false;
#endif
  return {{kPortable, kNeon, kNeonDot, kNeonDot}, dot ? 2 : 1};
}
#else
Processor detected() { return {}; }
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

Isa isa() { return processor().levels[level()]; }

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
