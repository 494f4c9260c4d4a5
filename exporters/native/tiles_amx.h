// AMX's tile registers, by number: GCC 12 takes its own names of them only as digits in the source.
#pragma once
#include <cstdint>

#include "elementary.h"

namespace slmc::avx512_amx {
namespace {

// What LDTILECFG reads: of every register its rows and their bytes.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

SLMC_INLINE void configure(const TileConfig& config) { asm volatile("ldtilecfg %0" : : "m"(config) : "memory"); }
SLMC_INLINE void release() { asm volatile("tilerelease" : : : "memory"); }

template <int tile>
SLMC_INLINE void clear() {
  asm volatile("tilezero %%tmm%c0" : : "i"(tile));
}

template <int tile>
SLMC_INLINE void load(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(tile) : "memory");
}

template <int tile>
SLMC_INLINE void store(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(tile) : "memory");
}

// sums[t][n] += products of signed bytes x[t][k] w[k / 4][n, k % 4]
template <int sums, int x, int w>
SLMC_INLINE void multiply_add() {
  asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(x), "i"(w));
}

}  // namespace
}  // namespace slmc::avx512_amx
