// What attention needs of NEON beyond its vector type, whichever way that multiplies bytes.
#pragma once
#include "attention-inl.h"
#include "vector_neon.h"

namespace slmc {
namespace {

template <typename Base>
struct AttentionVectorNeon : Base {
  using I = int32x4_t;
  using F = float32x4_t;
  static constexpr int kQueries = kNeonRegisters / 16;  // sums in half of the registers
  static SLMC_INLINE F max(F a, F b) { return vmaxq_f32(a, b); }
  static SLMC_INLINE F as_float(I v) { return vreinterpretq_f32_s32(v); }
  static SLMC_INLINE I flip(I v) { return Base::flip_signs(v); }
  // 16 bytes at `offset` of 4 rows: out has a word of four bytes per column
  static SLMC_INLINE void interleave(const uint8_t* const* rows, int64_t offset, I* out) {
    const auto row = [&](int i) SLMC_LAMBDA { return vld1q_u8(rows[i] + offset); };
    const auto words = [](uint8x16_t a, uint8x16_t b, I* two) SLMC_LAMBDA {
      two[0] = vreinterpretq_s32_u16(vzip1q_u16(vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b)));
      two[1] = vreinterpretq_s32_u16(vzip2q_u16(vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b)));
    };
    words(vzip1q_u8(row(0), row(1)), vzip1q_u8(row(2), row(3)), out);
    words(vzip2q_u8(row(0), row(1)), vzip2q_u8(row(2), row(3)), out + 2);
  }
};

}  // namespace
}  // namespace slmc
