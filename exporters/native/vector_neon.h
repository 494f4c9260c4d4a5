// Four lanes of 32 bits: NEON.
#pragma once
#include <arm_neon.h>

#include "lanes.h"
#include "neon_32.h"

namespace slmc::neon {
namespace {

struct Vector {
  static constexpr int kLanes = 4;
  using I = int32x4_t;
  using F = float32x4_t;

  static constexpr int kRegisters = kNeonRegisters;
  // Sums take half of the registers: vectors of rows times tokens, and where pairs are summed up first twice of them.
  static constexpr int kRowVectors8 = 2, kTokens8 = kRegisters / 8;
  static constexpr int kRowVectors32 = kRegisters / 8, kTokens32 = kRegisters / 2 / kRowVectors32;
  static constexpr int kProductTokens8 = 8, kProductTokens32 = 8;

  static SLMC_INLINE I load(const uint8_t* p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
  static SLMC_INLINE I load(const int8_t* p) { return vreinterpretq_s32_s8(vld1q_s8(p)); }
  static SLMC_INLINE I load(const int32_t* p) { return vld1q_s32(p); }
  static SLMC_INLINE F load(const float* p) { return vld1q_f32(p); }
  static SLMC_INLINE void store(float* p, F v) { vst1q_f32(p, v); }
  static SLMC_INLINE void store(int32_t* p, I v) { vst1q_s32(p, v); }
  static SLMC_INLINE void store(uint8_t* p, I v) { vst1q_u8(p, vreinterpretq_u8_s32(v)); }
  static SLMC_INLINE F load_first(const float* p, int count) {
    float copy[kLanes] = {};
    std::memcpy(copy, p, static_cast<size_t>(count) * sizeof *p);
    return load(copy);
  }
  static SLMC_INLINE void store_first(float* p, F v, int count) {
    float copy[kLanes];
    store(copy, v);
    std::memcpy(p, copy, static_cast<size_t>(count) * sizeof *p);
  }

  static SLMC_INLINE F zero() { return vdupq_n_f32(0); }
  static SLMC_INLINE F set(float v) { return vdupq_n_f32(v); }
  static SLMC_INLINE I set(int32_t v) { return vdupq_n_s32(v); }
  static SLMC_INLINE F add(F a, F b) { return vaddq_f32(a, b); }
  static SLMC_INLINE I add(I a, I b) { return vaddq_s32(a, b); }
  static SLMC_INLINE F sub(F a, F b) { return vsubq_f32(a, b); }
  static SLMC_INLINE F mul(F a, F b) { return vmulq_f32(a, b); }
  static SLMC_INLINE F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static SLMC_INLINE F fnma(F a, F b, F c) { return vfmsq_f32(c, a, b); }
  static SLMC_INLINE F to_float(I v) { return vcvtq_f32_s32(v); }
  static SLMC_INLINE I round(F v) { return vcvtnq_s32_f32(v); }
  static SLMC_INLINE I and_(I a, I b) { return vandq_s32(a, b); }
  static SLMC_INLINE I or_(I a, I b) { return vorrq_s32(a, b); }
  static SLMC_INLINE I sub(I a, I b) { return vsubq_s32(a, b); }
  template <int n>
  static SLMC_INLINE I right(I v) {
    if constexpr (n == 0) return v;
    else return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(v), n));
  }
  template <int n>
  static SLMC_INLINE I left(I v) {
    if constexpr (n == 0) return v;
    else return vshlq_n_s32(v, n);
  }
  template <int n>
  static SLMC_INLINE I right_signed(I v) { return vshrq_n_s32(v, n); }
  static SLMC_INLINE void keep(I&) {}
  // out[i] = in[from[i]] for 16 bytes
  static SLMC_INLINE void shuffle(const int8_t* in, const uint8_t* from, int8_t* out) {
    vst1q_s8(out, vqtbl1q_s8(vld1q_s8(in), vld1q_u8(from)));
  }
  static SLMC_INLINE F max_abs(F a, F b) { return vmaxq_f32(a, vabsq_f32(b)); }
  static SLMC_INLINE float sum(F v) { return vaddvq_f32(v); }
  static SLMC_INLINE int32_t sum(I v) { return vaddvq_s32(v); }
  static SLMC_INLINE float largest(F v) { return vmaxvq_f32(v); }

  static SLMC_INLINE float half(uint16_t v) {
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(v))), 0);
  }
  static SLMC_INLINE F load_halves(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
  static SLMC_INLINE F load_halves_first(const uint16_t* p, int count) {
    uint16_t copy[kLanes] = {};
    std::memcpy(copy, p, static_cast<size_t>(count) * sizeof *p);
    return load_halves(copy);
  }
  static SLMC_INLINE F load_bytes_first(const uint8_t* p, int count) {
    uint8_t copy[8] = {};
    std::memcpy(copy, p, static_cast<size_t>(count));
    return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vld1_u8(copy)))));
  }
  static SLMC_INLINE F low_half(I v) { return vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(vreinterpretq_u32_s32(v)))); }
  static SLMC_INLINE void store_bytes(int8_t* p, I v) {
    const int16x4_t words = vqmovn_s32(v);
    int8_t copy[8];
    vst1_s8(copy, vqmovn_s16(vcombine_s16(words, words)));
    std::memcpy(p, copy, kLanes);
  }
  static SLMC_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }
  static SLMC_INLINE I ones() { return vreinterpretq_s32_s8(vdupq_n_s8(1)); }
  static SLMC_INLINE I broadcast(const int8_t* p) {
    int32_t four;
    std::memcpy(&four, p, sizeof four);
    return set(four);
  }

  static constexpr bool kPairs = true, kPanelPairs = true;
  static constexpr int kSlots = 1;
  // Products of the low and the high eight bytes, each in 16 bits.
  struct Pairs {
    int16x8_t low, high;
  };
  // Products of this many vectors fit together in 16 bits; those of 8 bits are -128 .. 127 times -127 .. 127.
  template <int bits>
  static constexpr int kPairsTogether = bits == 8 ? 2 : 32767 / (127 * ((1 << bits) - 1));
  template <int bits>
  static SLMC_INLINE Pairs pairs(I codes, I x) {
    const int8x16_t a = vreinterpretq_s8_s32(codes), b = vreinterpretq_s8_s32(x);
    return {vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_s8(vget_high_s8(a), vget_high_s8(b))};
  }
  template <int bits>
  static SLMC_INLINE Pairs add_pairs(Pairs held, I codes, I x) {
    const int8x16_t a = vreinterpretq_s8_s32(codes), b = vreinterpretq_s8_s32(x);
    return {vmlal_s8(held.low, vget_low_s8(a), vget_low_s8(b)), vmlal_s8(held.high, vget_high_s8(a), vget_high_s8(b))};
  }
  static SLMC_INLINE I add_widened(I sum, const Pairs& pairs) {
    return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(pairs.low), vpaddlq_s16(pairs.high)));
  }
  // signed bytes times signed bytes, so codes of 8 bits come less 128
  static constexpr bool kSignedCodes8 = true;
  static SLMC_INLINE I flip_signs(I codes) { return veorq_s32(codes, vreinterpretq_s32_u8(vdupq_n_u8(128))); }
  template <int bits>
  static SLMC_INLINE I dot(I sum, I codes, I x) {
    return add_widened(sum, pairs<bits>(codes, x));
  }

  static constexpr auto list_inputs = slmc::list_inputs;
  static constexpr bool kFloatTables = false;
  static constexpr bool kSignedDots = true;
  static SLMC_INLINE I less(I codes, I centre) {
    return vreinterpretq_s32_s8(vsubq_s8(vreinterpretq_s8_s32(codes), vreinterpretq_s8_s32(centre)));
  }

  // For sparse matrices. a where mask has ones, else b.
  static SLMC_INLINE I choose(I mask, I a, I b) { return vbslq_s32(vreinterpretq_u32_s32(mask), a, b); }
  // table[index % 2^bits] of every byte, of at most 80 entries that are not nothing
  template <int bits>
  static SLMC_INLINE I look_up(const uint8_t* table, I index) {
    const uint8x16_t from = vandq_u8(vreinterpretq_u8_s32(index), vdupq_n_u8((1 << bits) - 1));
    if constexpr (bits <= 4) return vreinterpretq_s32_u8(vqtbl1q_u8(vld1q_u8(table), from));
    if constexpr (bits == 5) return vreinterpretq_s32_u8(vqtbl2q_u8({{vld1q_u8(table), vld1q_u8(table + 16)}}, from));
    uint8x16_t found = vqtbl4q_u8({{vld1q_u8(table), vld1q_u8(table + 16), vld1q_u8(table + 32), vld1q_u8(table + 48)}}, from);
    if constexpr (bits == 7)
      found = vorrq_u8(found, vqtbl1q_u8(vld1q_u8(table + 64), vsubq_u8(from, vdupq_n_u8(64))));
    return vreinterpretq_s32_u8(found);
  }
  // Four periods of activations: pick gives every lane that of each period which the byte's low bits say.
  template <int period>
  struct Block {
    int8x16_t low, high;
    explicit SLMC_INLINE Block(const int8_t* q) : low(vld1q_s8(q)), high(period == 8 ? vld1q_s8(q + 16) : low) {}
    SLMC_INLINE I pick(I places) const {
      const I first = Vector::set(period == 4 ? 0x0c080400 : 0x18100800);
      const I in_period = and_(places, vreinterpretq_s32_u8(vdupq_n_u8(period - 1)));
      const uint8x16_t from = vreinterpretq_u8_s32(or_(in_period, first));
      return vreinterpretq_s32_s8(period == 4 ? vqtbl1q_s8(low, from) : vqtbl2q_s8({{low, high}}, from));
    }
  };
  // The activations of 64 that a mask of 8 bytes keeps, one after another, `count` of them; adds them to the lanes of
  // sum.
  static SLMC_INLINE I gather(const int8_t* q, const uint8_t* mask, int64_t count, int8_t* out, I sum) {
    return gather_by_shuffles<Vector>(q, mask, count, out, sum);
  }

  // 16 bytes at `offset` of 4 rows: out[d] = word d of every row
  static SLMC_INLINE void transpose(const uint8_t* const* rows, int64_t offset, I* out) {
    const I a = load(rows[0] + offset), b = load(rows[1] + offset);
    const I c = load(rows[2] + offset), d = load(rows[3] + offset);
    const int64x2_t ab0 = vreinterpretq_s64_s32(vzip1q_s32(a, b)), ab1 = vreinterpretq_s64_s32(vzip2q_s32(a, b));
    const int64x2_t cd0 = vreinterpretq_s64_s32(vzip1q_s32(c, d)), cd1 = vreinterpretq_s64_s32(vzip2q_s32(c, d));
    out[0] = vreinterpretq_s32_s64(vzip1q_s64(ab0, cd0));
    out[1] = vreinterpretq_s32_s64(vzip2q_s64(ab0, cd0));
    out[2] = vreinterpretq_s32_s64(vzip1q_s64(ab1, cd1));
    out[3] = vreinterpretq_s32_s64(vzip2q_s64(ab1, cd1));
  }

  template <int low, int high, int part, int first>
  static SLMC_INLINE I add_high_rows(I bytes, I words) {
    return add_high_by_shifts<Vector, low, high, part, first>(bytes, words);
  }

  // The plane's codes as bytes: part j of a chunk has every (8 / low)th code, beginning with j.
  template <int bits>
  static SLMC_INLINE void unpack(const uint8_t* low_plane, const uint8_t* high_plane, I* out) {
    constexpr int low = low_bits(bits), high = high_bits(bits), in_high = high * 4 / low;  // bytes of a lane up there
    const uint8x16_t packed = vld1q_u8(low_plane);
    if constexpr (low == 8) {
      out[0] = vreinterpretq_s32_u8(packed);
      return;
    }
    uint8x16_t spread = vdupq_n_u8(0);  // every byte sees the byte of the high plane that has its bits
    if constexpr (high > 0) {
      uint8_t bytes[16] = {}, which[16];
      std::memcpy(bytes, high_plane, 4 * in_high);
      for (int i = 0; i < 16; ++i) which[i] = static_cast<uint8_t>(i * in_high / 4);
      spread = vqtbl1q_u8(vld1q_u8(bytes), vld1q_u8(which));
    }
    unrolled<8 / low>([&](auto j) {
      int8_t down[16], up[16];
      for (int i = 0; i < 16; ++i) {
        down[i] = static_cast<int8_t>(-low * j.value);
        up[i] = static_cast<int8_t>(low - high * (i % 4 * (8 / low) + j.value) % 8);
      }
      uint8x16_t codes = vandq_u8(vshlq_u8(packed, vld1q_s8(down)), vdupq_n_u8((1 << low) - 1));
      if constexpr (high > 0)
        codes = vorrq_u8(codes, vandq_u8(vshlq_u8(spread, vld1q_s8(up)), vdupq_n_u8(((1 << high) - 1) << low)));
      out[j.value] = vreinterpretq_s32_u8(codes);
    });
  }

  // A chunk's codes as lanes of words; multiply<p> adds x times (code p of each lane - centre).
  template <int bits>
  struct Words {
    static constexpr int low = low_bits(bits), high = high_bits(bits), centre = 1 << (bits - 1);
    I words, more;

    SLMC_INLINE void read(const uint8_t* low_plane, const uint8_t* high_plane) {
      int32_t of_lane[kLanes] = {};
      constexpr int bytes = high * 4 / low;
      for (int i = 0; high > 0 && i < kLanes; ++i)
        of_lane[i] = bytes == 1 ? high_plane[i] : high_plane[2 * i] | high_plane[2 * i + 1] << 8;
      take(load(low_plane), load(of_lane));
    }
    // A lane's words, its high bits from the lowest on; bits above are not looked at.
    SLMC_INLINE void take(I low_words, I high_words) {
      words = low_words;
      more = high_words;
    }

    template <int p>
    SLMC_INLINE F multiply(F x, F sum) const {
      I code = and_(right<low * p>(words), Vector::set((1 << low) - 1));
      if constexpr (high > 0) code = or_(code, left<low>(and_(right<high * p>(more), Vector::set((1 << high) - 1))));
      return fma(sub(to_float(code), Vector::set(static_cast<float>(centre))), x, sum);
    }
  };
};

}  // namespace
}  // namespace slmc::neon
