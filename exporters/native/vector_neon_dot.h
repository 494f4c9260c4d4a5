// NEON with dot products of bytes (ARMv8.2, optional there, and later).
#pragma once
#include "vector_neon.h"

namespace slmc::neon_dot {
namespace {

struct Vector : neon::Vector {
  static constexpr bool kPairs = false, kPanelPairs = false;
  template <int bits>
  static SLMC_INLINE I dot(I sum, I codes, I x) {
    return vdotq_s32(sum, vreinterpretq_s8_s32(codes), vreinterpretq_s8_s32(x));
  }
  static SLMC_INLINE I gather(const int8_t* q, const uint8_t* mask, int64_t count, int8_t* out, I sum) {
    return gather_by_shuffles<Vector>(q, mask, count, out, sum);
  }
};

}  // namespace
}  // namespace slmc::neon_dot
