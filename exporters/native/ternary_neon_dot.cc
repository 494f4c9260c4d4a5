// Ternary products on NEON with dot products of bytes: by the fractions less 128, which tripling keeps.
#include <arm_neon.h>

#include <algorithm>
#include <cstring>

#include "ternary.h"

namespace slmc {
namespace {

constexpr int kDigits = 5, kRegisters = 4;

// As ternary.cc says of fractions. With f = 128 + g the sums are those of the weights, digits less one:
//   256 sum_i (digit_i - 1) x_i = 3 sum_i g_i x_i - sum_i g_(i+1) x_i
// and sums of digits are more by those of the inputs.
void token(const TernaryPart& part, int64_t row, const int8_t* x, int32_t of_inputs, int32_t* out) {
  const uint8_t* tile = part.codes + row / kTernaryRows * part.words * kTernaryBytes;
  int32x4_t now[kRegisters], next[kRegisters];
  for (int r = 0; r < kRegisters; ++r) now[r] = next[r] = vdupq_n_s32(0);
  for (int64_t w = 0; w < part.words; ++w) {
    int8x16_t g[kRegisters];
    for (int r = 0; r < kRegisters; ++r)
      g[r] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(tile + w * kTernaryBytes + 16 * r), vdupq_n_u8(128)));
    for (int i = 0; i < kDigits; ++i) {
      int32_t four;
      std::memcpy(&four, x + w * kTernaryInputs + 4 * i, 4);
      const int8x16_t inputs = vreinterpretq_s8_s32(vdupq_n_s32(four));
      for (int r = 0; r < kRegisters; ++r) {
        now[r] = vdotq_s32(now[r], g[r], inputs);
        g[r] = vaddq_s8(vaddq_s8(g[r], g[r]), g[r]);
        next[r] = vdotq_s32(next[r], g[r], inputs);
      }
    }
  }
  int32_t sums[kTernaryRows];
  for (int r = 0; r < kRegisters; ++r) {
    const int32x4_t weights = vshrq_n_s32(vsubq_s32(vmulq_n_s32(now[r], 3), next[r]), 8);
    vst1q_s32(sums + 4 * r, vaddq_s32(weights, vdupq_n_s32(of_inputs)));
  }
  std::memcpy(out + row, sums, std::min(kTernaryRows, part.N - row) * sizeof(int32_t));
}

}  // namespace

void ternary_sums_neon_dot(const TernaryPart& part) {
  const int64_t length = part.words * kTernaryInputs;
  for (int64_t t = 0; t < part.tokens; ++t) {
    const int8_t* x = part.x + t * length;
    int32_t of_inputs = 0;
    for (int64_t k = 0; k < length; ++k) of_inputs += x[k];
    for (int64_t row = part.first; row < part.last; row += kTernaryRows) token(part, row, x, of_inputs, part.sums + t * part.N);
  }
}

}  // namespace slmc
