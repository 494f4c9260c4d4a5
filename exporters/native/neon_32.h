// What NEON of 32-bit Arm lacks of the 64-bit one's intrinsics, and how many registers there are.
#pragma once
#include <arm_neon.h>

#include "elementary.h"

namespace slmc {

#if defined(__aarch64__)
constexpr int kNeonRegisters = 32;
#else
constexpr int kNeonRegisters = 16;
#endif

}  // namespace slmc

#if !defined(__aarch64__)
namespace {

// The nearest integer, ties to even, of what is within 2^22 of 0: there is no instruction, but sums round so.
SLMC_INLINE int32x4_t vcvtnq_s32_f32(float32x4_t v) {
  const float32x4_t moved = vaddq_f32(v, vdupq_n_f32(12582912.0f));  // 1.5 * 2^23
  return vsubq_s32(vreinterpretq_s32_f32(moved), vdupq_n_s32(0x4b400000));
}

SLMC_INLINE float vaddvq_f32(float32x4_t v) {
  const float32x2_t pairs = vpadd_f32(vget_low_f32(v), vget_high_f32(v));
  return vget_lane_f32(vpadd_f32(pairs, pairs), 0);
}
SLMC_INLINE int32_t vaddvq_s32(int32x4_t v) {
  const int32x2_t pairs = vpadd_s32(vget_low_s32(v), vget_high_s32(v));
  return vget_lane_s32(vpadd_s32(pairs, pairs), 0);
}
SLMC_INLINE float vmaxvq_f32(float32x4_t v) {
  const float32x2_t pairs = vpmax_f32(vget_low_f32(v), vget_high_f32(v));
  return vget_lane_f32(vpmax_f32(pairs, pairs), 0);
}
SLMC_INLINE int32x4_t vpaddq_s32(int32x4_t a, int32x4_t b) {
  return vcombine_s32(vpadd_s32(vget_low_s32(a), vget_high_s32(a)), vpadd_s32(vget_low_s32(b), vget_high_s32(b)));
}

SLMC_INLINE int32x4_t vzip1q_s32(int32x4_t a, int32x4_t b) { return vzipq_s32(a, b).val[0]; }
SLMC_INLINE int32x4_t vzip2q_s32(int32x4_t a, int32x4_t b) { return vzipq_s32(a, b).val[1]; }
SLMC_INLINE int64x2_t vzip1q_s64(int64x2_t a, int64x2_t b) { return vcombine_s64(vget_low_s64(a), vget_low_s64(b)); }
SLMC_INLINE int64x2_t vzip2q_s64(int64x2_t a, int64x2_t b) { return vcombine_s64(vget_high_s64(a), vget_high_s64(b)); }
SLMC_INLINE uint8x16_t vzip1q_u8(uint8x16_t a, uint8x16_t b) { return vzipq_u8(a, b).val[0]; }
SLMC_INLINE uint8x16_t vzip2q_u8(uint8x16_t a, uint8x16_t b) { return vzipq_u8(a, b).val[1]; }
SLMC_INLINE uint16x8_t vzip1q_u16(uint16x8_t a, uint16x8_t b) { return vzipq_u16(a, b).val[0]; }
SLMC_INLINE uint16x8_t vzip2q_u16(uint16x8_t a, uint16x8_t b) { return vzipq_u16(a, b).val[1]; }

// Tables of 16, 32 and 64 bytes; places beyond them give 0.
SLMC_INLINE uint8x16_t vqtbl1q_u8(uint8x16_t table, uint8x16_t from) {
  const uint8x8x2_t halves = {{vget_low_u8(table), vget_high_u8(table)}};
  return vcombine_u8(vtbl2_u8(halves, vget_low_u8(from)), vtbl2_u8(halves, vget_high_u8(from)));
}
SLMC_INLINE uint8x16_t vqtbl2q_u8(uint8x16x2_t table, uint8x16_t from) {
  const uint8x8x4_t quarters = {{vget_low_u8(table.val[0]), vget_high_u8(table.val[0]), vget_low_u8(table.val[1]),
                                 vget_high_u8(table.val[1])}};
  return vcombine_u8(vtbl4_u8(quarters, vget_low_u8(from)), vtbl4_u8(quarters, vget_high_u8(from)));
}
SLMC_INLINE uint8x16_t vqtbl4q_u8(uint8x16x4_t table, uint8x16_t from) {
  const uint8x16_t first = vqtbl2q_u8({{table.val[0], table.val[1]}}, from);
  return vorrq_u8(first, vqtbl2q_u8({{table.val[2], table.val[3]}}, vsubq_u8(from, vdupq_n_u8(32))));
}
SLMC_INLINE int8x16_t vqtbl1q_s8(int8x16_t table, uint8x16_t from) {
  return vreinterpretq_s8_u8(vqtbl1q_u8(vreinterpretq_u8_s8(table), from));
}
SLMC_INLINE int8x16_t vqtbl2q_s8(int8x16x2_t table, uint8x16_t from) {
  return vreinterpretq_s8_u8(
      vqtbl2q_u8({{vreinterpretq_u8_s8(table.val[0]), vreinterpretq_u8_s8(table.val[1])}}, from));
}

}  // namespace
#endif
