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
#elif (defined(__aarch64__) || defined(__arm__)) && defined(__linux__)
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
// Levels that this build has kernels of.
#if defined(SLMC_WITHOUT_AVX_VNNI)
constexpr bool kBuiltAvxVnni = false;
#else
constexpr bool kBuiltAvxVnni = true;
#endif
#if defined(SLMC_WITHOUT_AVX512VL_VNNI)
constexpr bool kBuiltAvx512VlVnni = false;
#else
constexpr bool kBuiltAvx512VlVnni = true;
#endif
#if defined(SLMC_WITHOUT_AVX512)
constexpr bool kBuiltAvx512 = false;
#else
constexpr bool kBuiltAvx512 = true;
#endif

// Read here: what compilers offer for it (__builtin_cpu_supports) finds nothing where zig links musl.
struct Words {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Words cpuid(unsigned leaf, unsigned subleaf) {
  Words words;
  if (!__get_cpuid_count(leaf, subleaf, &words.eax, &words.ebx, &words.ecx, &words.edx)) return {};
  return words;
}

// Registers that the system keeps from one process to the next.
unsigned kept_registers() {
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

constexpr unsigned bit(int place) { return 1u << place; }
constexpr bool has(unsigned word, unsigned wanted) { return (word & wanted) == wanted; }

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

Processor detected() {
  constexpr unsigned kFma = bit(12), kSaved = bit(27), kAvx = bit(28), kF16c = bit(29);  // leaf 1, ecx
  constexpr unsigned kBmi = bit(3), kAvx2Bit = bit(5), kBmi2 = bit(8);                   // leaf 7, ebx
  constexpr unsigned kF = bit(16), kDq = bit(17), kBw = bit(30), kVl = bit(31);
  constexpr unsigned kVbmi = bit(1), kVbmi2 = bit(6), kGfni = bit(8), kVnni = bit(11);   // leaf 7, ecx
  constexpr unsigned kTile = bit(24), kTileInt8 = bit(25), kVexVnni = bit(4);            // leaf 7, edx; leaf 7.1, eax
  constexpr unsigned kHalves = 0x06, kWhole = 0xe6;                                      // of 256, of 512 bits
  const Words first = cpuid(1, 0), seventh = cpuid(7, 0), more = cpuid(7, 1);
  const unsigned kept = has(first.ecx, kSaved) ? kept_registers() : 0;
  const bool vector = has(first.ecx, kFma | kAvx | kF16c) && has(seventh.ebx, kBmi | kAvx2Bit | kBmi2) && has(kept, kHalves);
  const bool evex = has(seventh.ebx, kF | kVl) && has(seventh.ecx, kVnni) && has(kept, kWhole);
  const bool wide = kBuiltAvx512 && evex && has(seventh.ebx, kBw | kDq) && has(seventh.ecx, kVbmi | kVbmi2 | kGfni);
  const Isa dot = kBuiltAvxVnni && has(more.eax, kVexVnni) ? kAvxVnni : kBuiltAvx512VlVnni && evex ? kAvx512VlVnni : kAvx2;
  const bool matrices = has(seventh.edx, kTile | kTileInt8);
  const int best = !vector ? 0 : wide ? matrices && permitted_tiles() ? 4 : 3 : dot != kAvx2 ? 2 : 1;
  return {{kPortable, kAvx2, dot, kAvx512, kAvx512Amx}, best};
}
#elif defined(__aarch64__)
Processor detected() {
#if defined(__linux__) && !defined(SLMC_WITHOUT_NEON_DOT)
  constexpr unsigned long kDotProductBit = 1ul << 20;  // HWCAP_ASIMDDP
  const bool dot = getauxval(AT_HWCAP) & kDotProductBit;
#else
  const bool dot = false;
#endif
  return {{kPortable, kNeon, kNeonDot, kNeonDot, kNeonDot}, dot ? 2 : 1};
}
#elif defined(__arm__) && __ARM_ARCH >= 7 && defined(__linux__)
Processor detected() {
  constexpr unsigned long kNeonBit = 1ul << 12, kFusedBit = 1ul << 16;  // HWCAP_NEON, HWCAP_VFPv4
  const unsigned long has = getauxval(AT_HWCAP);
  return {{kPortable, kNeon, kNeon, kNeon, kNeon}, has & kNeonBit && has & kFusedBit ? 1 : 0};
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
#if defined(__aarch64__) || defined(__arm__)
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
