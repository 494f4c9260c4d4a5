// The instruction set, detected once; the C functions tell and, for tests, lower it.
//
// A level is an instruction set or one with dot products: 0 portable, 1 vector, 2 vector and dot products, 3 wide, 4
// matrices.
#include "isa.h"

#include "elementary.h"

#include <atomic>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace slmc {
namespace {

constexpr int kLevels = 5;

struct Processor {
  Isa levels[kLevels];
  int best;
};

#if defined(__x86_64__)
bool has_avx_vnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}

// Asks for the registers of tiles, which are the process's only after that: arch/x86/xstate.rst of Linux.
bool permitted_tiles() {
#if defined(SLMC_AMX) && defined(__linux__)
  constexpr long kGetSupported = 0x1021, kRequest = 0x1023;  // ARCH_GET_XCOMP_SUPP, ARCH_REQ_XCOMP_PERM
  constexpr unsigned long kTileData = 18;
  unsigned long supported = 0;
  return syscall(SYS_arch_prctl, kGetSupported, &supported) == 0 && supported >> kTileData & 1 &&
         syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

bool has_amx_int8() {
  constexpr unsigned kTileAndInt8 = 3u << 24;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) && (edx & kTileAndInt8) == kTileAndInt8 && permitted_tiles();
}

Processor detected() {
  __builtin_cpu_init();
  const bool vector = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool evex = __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  const Isa dot = has_avx_vnni() ? kAvxVnni : evex ? kAvx512VlVnni : kAvx2;
  const bool wide = evex && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
                    __builtin_cpu_supports("gfni");
  const int best = !vector ? 0 : wide ? has_amx_int8() ? 4 : 3 : dot != kAvx2 ? 2 : 1;
  return {{kPortable, kAvx2, dot, kAvx512, kAvx512Amx}, best};
}
#elif defined(__aarch64__)
Processor detected() {
#if defined(__linux__)
  constexpr unsigned long kDotProductBit = 1ul << 20;  // HWCAP_ASIMDDP
  const bool dot = getauxval(AT_HWCAP) & kDotProductBit;
#else
  const bool dot = false;
#endif
  return {{kPortable, kNeon, kNeonDot, kNeonDot, kNeonDot}, dot ? 2 : 1};
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
  static const char* const names[] = {"portable", "neon", "neon-dotprod"};
#else
  static const char* const names[] = {"portable", "avx2", "avx2-vnni", "avx512", "avx512-amx"};
#endif
  return names[slmc::level()];
}

// Levels above what the processor has mean the best that it has; a negative one lifts the limit.
SLMC_EXPORT void slmc_force_isa(int level) {
  slmc::forced.store(level, std::memory_order_relaxed);
}

}  // extern "C"
