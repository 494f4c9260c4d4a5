// Sixteen lanes of 32 bits: AVX-512 with VNNI, VBMI and VBMI2.
#pragma once
#include <immintrin.h>

#include "lanes.h"

namespace slmc::avx512 {
namespace {

struct Vector {
  static constexpr int kLanes = 16;
  static constexpr bool kPairs = false, kPanelPairs = false;
  static constexpr int kRegisters = 32;
  using I = __m512i;
  using F = __m512;
  using Pairs = I;

  static SLMC_INLINE I load(const void* p) { return _mm512_loadu_si512(p); }
  static SLMC_INLINE I load(const uint8_t* p) { return _mm512_loadu_si512(p); }
  static SLMC_INLINE I load(const int8_t* p) { return _mm512_loadu_si512(p); }
  static SLMC_INLINE I load(const int32_t* p) { return _mm512_loadu_si512(p); }
  static SLMC_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
  static SLMC_INLINE void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static SLMC_INLINE void store(void* p, I v) { _mm512_storeu_si512(p, v); }
  static SLMC_INLINE F load_first(const float* p, int count) { return _mm512_maskz_loadu_ps(first(count), p); }
  static SLMC_INLINE void store_first(float* p, F v, int count) { _mm512_mask_storeu_ps(p, first(count), v); }
  static SLMC_INLINE __mmask16 first(int count) { return static_cast<__mmask16>((1u << count) - 1); }

  static constexpr int kRowVectors8 = 2, kTokens8 = 6;     // 24 sums of 32 registers
  static constexpr int kRowVectors32 = 2, kTokens32 = 12;  // likewise
  static constexpr int kProductTokens8 = 8, kProductTokens32 = 8;
  static constexpr int kSlots = 8;

  static SLMC_INLINE F zero() { return _mm512_setzero_ps(); }
  static SLMC_INLINE F set(float v) { return _mm512_set1_ps(v); }
  static SLMC_INLINE I set(int32_t v) { return _mm512_set1_epi32(v); }
  static SLMC_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
  static SLMC_INLINE F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static SLMC_INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static SLMC_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static SLMC_INLINE F fnma(F a, F b, F c) { return _mm512_fnmadd_ps(a, b, c); }
  static SLMC_INLINE F to_float(I v) { return _mm512_cvtepi32_ps(v); }
  static SLMC_INLINE float sum(F v) { return _mm512_reduce_add_ps(v); }
  static SLMC_INLINE int32_t sum(I v) { return _mm512_reduce_add_epi32(v); }
  static SLMC_INLINE I add(I a, I b) { return _mm512_add_epi32(a, b); }
  static SLMC_INLINE F max_abs(F a, F b) { return _mm512_max_ps(a, _mm512_abs_ps(b)); }
  static SLMC_INLINE float largest(F v) { return _mm512_reduce_max_ps(v); }
  static SLMC_INLINE I round(F v) { return _mm512_cvtps_epi32(v); }
  static SLMC_INLINE void store_bytes(int8_t* p, I v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(v));
  }
  static SLMC_INLINE I ones() { return _mm512_set1_epi8(1); }
  static SLMC_INLINE I broadcast(const int8_t* p) {
    int32_t four;
    std::memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
  }
  static SLMC_INLINE F low_half(I v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }

  // 16 bytes at `offset` of 16 rows: out[d] = word d of every row
  static SLMC_INLINE void transpose(const uint8_t* const* rows, int64_t offset, I* out) {
    I fours[4];  // quarter q of fours[i] is row 4 q + i
    unrolled<4>([&](auto i) {
      const auto row = [&](int q) SLMC_LAMBDA {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[4 * q + i.value] + offset));
      };
      I v = _mm512_castsi128_si512(row(0));
      v = _mm512_inserti32x4(v, row(1), 1);
      v = _mm512_inserti32x4(v, row(2), 2);
      fours[i.value] = _mm512_inserti32x4(v, row(3), 3);
    });
    const I low01 = _mm512_unpacklo_epi32(fours[0], fours[1]), low23 = _mm512_unpacklo_epi32(fours[2], fours[3]);
    const I high01 = _mm512_unpackhi_epi32(fours[0], fours[1]), high23 = _mm512_unpackhi_epi32(fours[2], fours[3]);
    out[0] = _mm512_unpacklo_epi64(low01, low23);
    out[1] = _mm512_unpackhi_epi64(low01, low23);
    out[2] = _mm512_unpacklo_epi64(high01, high23);
    out[3] = _mm512_unpackhi_epi64(high01, high23);
  }

  // The same where every lane is a row and its high bits begin at bit `first`.
  template <int low, int high, int part, int first>
  static SLMC_INLINE I add_high_rows(I bytes, I words) {
    return add_high<low, high, part, first, 32>(bytes, words);
  }
  static SLMC_INLINE I and_(I a, I b) { return _mm512_and_si512(a, b); }
  static SLMC_INLINE I or_(I a, I b) { return _mm512_or_si512(a, b); }
  static SLMC_INLINE I sub_bytes(I a, int byte) { return _mm512_sub_epi8(a, _mm512_set1_epi8(static_cast<char>(byte))); }
  static SLMC_INLINE I sub(I a, I b) { return _mm512_sub_epi32(a, b); }
  template <int n>
  static SLMC_INLINE I right(I v) { return n ? _mm512_srli_epi32(v, n) : v; }
  template <int n>
  static SLMC_INLINE I left(I v) { return n ? _mm512_slli_epi32(v, n) : v; }
  template <int n>
  static SLMC_INLINE I right_signed(I v) { return _mm512_srai_epi32(v, n); }
  // One load: compilers repeat it per use, and loads are what is short here.
  static SLMC_INLINE void keep(I& v) { asm("" : "+v"(v)); }
  // out[i] = in[from[i]] for 16 bytes
  static SLMC_INLINE void shuffle(const int8_t* in, const uint8_t* from, int8_t* out) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in));
    const __m128i places = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_shuffle_epi8(bytes, places));
  }

  static SLMC_INLINE float half(uint16_t v) { return _cvtsh_ss(v); }
  static SLMC_INLINE F load_halves(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static SLMC_INLINE F load_halves_first(const uint16_t* p, int count) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(count), p));
  }
  static SLMC_INLINE F load_bytes_first(const uint8_t* p, int count) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first(count), p)));
  }
  static SLMC_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

  // Unsigned codes times signed bytes, four to a lane. In assembly, because GCC 12 copies every sum around its own
  // builtin, which costs more than the product.
  template <int bits>
  static SLMC_INLINE I dot(I sum, I codes, I x) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(x));
    return sum;
  }
  static constexpr bool kSignedCodes8 = false;  // codes of 8 bits multiply as they are, 0 .. 255
  static constexpr bool kSignedDots = false;

  static int32_t list_inputs(const float* x, int64_t from, int64_t to, Signs signs, int32_t* index) {
    const I lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    int32_t* next = index;
    for (int64_t k = from; k < to; k += kLanes) {
      const __mmask16 there = first(to - k < kLanes ? static_cast<int>(to - k) : kLanes);
      const F values = _mm512_maskz_loadu_ps(there, x + k);
      const __mmask16 kept = signs == kAnySign    ? _mm512_cmp_ps_mask(values, zero(), _CMP_NEQ_UQ)
                             : signs == kPositive ? _mm512_cmp_ps_mask(values, zero(), _CMP_GT_OQ)
                                                  : _mm512_cmp_ps_mask(values, zero(), _CMP_LT_OQ);
      store(next, _mm512_maskz_compress_epi32(kept, _mm512_add_epi32(lane, set(static_cast<int32_t>(k)))));
      next += _mm_popcnt_u32(kept);
    }
    return static_cast<int32_t>(next - index);
  }

  // Adds the high plane's bits above the `low` bits of bytes whose lanes begin at bit `first` of their quadword's 64.
  template <int low, int high, int part, int first, int stride>
  static SLMC_INLINE I add_high(I bytes, I words) {
    alignas(64) static constexpr auto control = [] {
      Bytes out{};
      for (int i = 0; i < 64; ++i) {
        const int lane = i % 8 / 4, byte = i % 4;
        const int bit = first + lane * stride + high * (byte * (8 / low) + part) - low;
        out.value[i] = static_cast<uint8_t>(bit & 63);
      }
      return out;
    }();
    const I spread = _mm512_multishift_epi64_epi8(_mm512_load_si512(control.value), words);
    const I mask = _mm512_set1_epi8(static_cast<char>(((1 << high) - 1) << low));
    return _mm512_ternarylogic_epi64(bytes, spread, mask, 0xf8);  // bytes | (spread & mask)
  }
  struct Bytes {
    alignas(64) uint8_t value[64];
  };

  // For sparse matrices. a where mask has ones, else b.
  static SLMC_INLINE I choose(I mask, I a, I b) { return _mm512_ternarylogic_epi32(mask, a, b, 0xca); }
  // table[index % 128] of every byte; where fewer bits count, the table repeats
  template <int bits>
  static SLMC_INLINE I look_up(const uint8_t* table, I index) {
    if constexpr (bits < 7) return _mm512_permutexvar_epi8(index, load(table));
    else return _mm512_permutex2var_epi8(load(table), index, load(table + 64));
  }
  // Four periods of activations: pick gives every lane that of each period which the byte's low bits say.
  template <int period>
  struct Block {
    I x;
    explicit SLMC_INLINE Block(const int8_t* q)
        : x(period == 4 ? _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)))
                        : _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(q)))) {}
    SLMC_INLINE I pick(I places) const {
      const I first = _mm512_set1_epi32(period == 4 ? 0x0c080400 : 0x18100800);
      const I from = _mm512_ternarylogic_epi32(places, _mm512_set1_epi8(period - 1), first, 0xea);  // (a & b) | c
      return period == 4 ? _mm512_shuffle_epi8(x, from) : _mm512_permutexvar_epi8(from, x);
    }
  };
  // Words that two rows share, r and r + 8: to the right by n, for the latter by 4 more.
  template <int n>
  static SLMC_INLINE I paired(const uint8_t* p) {
    const I both = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    constexpr int a = n & 31, b = (n + 4) & 31;
    return _mm512_rorv_epi32(both, _mm512_setr_epi32(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b));
  }
  // The activations of 64 that a mask of 8 bytes keeps, one after another, `count` of them; adds them to the lanes of
  // sum. A store over the end of a line is slow to be read again, and so are two at once.
  static SLMC_INLINE I gather(const int8_t* q, const uint8_t* mask, int64_t count, int8_t* out, I sum) {
    uint64_t places;
    std::memcpy(&places, mask, sizeof places);
    const I kept = _mm512_maskz_compress_epi8(places, load(q));
    if (count > 32) store(out, kept);
    else _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(kept));
    return dot<8>(sum, ones(), kept);
  }

  // The plane's codes as bytes: part j of a chunk has every (8 / low)th code, beginning with j.
  template <int bits>
  static SLMC_INLINE void unpack(const uint8_t* low_plane, const uint8_t* high_plane, I* out) {
    constexpr int low = low_bits(bits), high = high_bits(bits);
    I packed = load(low_plane);
    if constexpr (low == 8) {
      out[0] = packed;
      return;
    }
    keep(packed);
    const I mask = _mm512_set1_epi8(static_cast<char>((1 << low) - 1));
    split<low, 0>(packed, mask, out);
    if constexpr (high > 0) {
      // a quadword of bytes holds two lanes of 32 / low codes
      I words;
      if constexpr (high * 64 / low == 16)
        words = _mm512_cvtepu16_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(high_plane)));
      else
        words = _mm512_cvtepu32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(high_plane)));
      join<low, high, 0>(words, out);
    }
  }
  template <int low, int j>
  static SLMC_INLINE void split(I packed, I mask, I* out) {
    if constexpr (j < 8 / low) {
      if constexpr (j == 0) out[j] = _mm512_and_si512(packed, mask);
      // not gf2p8affine, which does both at once: it shares its units with the products
      if constexpr (j > 0) out[j] = _mm512_and_si512(_mm512_srli_epi16(packed, j * low), mask);
      split<low, j + 1>(packed, mask, out);
    }
  }
  template <int low, int high, int j>
  static SLMC_INLINE void join(I words, I* out) {
    if constexpr (j < 8 / low) {
      out[j] = add_high<low, high, j, 0, high * 32 / low>(out[j], words);
      join<low, high, j + 1>(words, out);
    }
  }

  // A chunk's codes as lanes of words; multiply<p> adds x times (code p of each lane - centre).
  template <int bits>
  struct Words {
    static constexpr int low = low_bits(bits), high = high_bits(bits), centre = 1 << (bits - 1);
    I words, more;

    SLMC_INLINE void read(const uint8_t* low_plane, const uint8_t* high_plane) {
      I high_words = _mm512_setzero_si512();
      if constexpr (high * 32 / low == 8)
        high_words = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(high_plane)));
      if constexpr (high * 32 / low == 16)
        high_words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(high_plane)));
      take(load(low_plane), high_words);
    }
    // A lane's words, its high bits from the lowest on; bits above are not looked at.
    SLMC_INLINE void take(I low_words, I high_words) {
      words = bits == 8 ? _mm512_xor_si512(low_words, _mm512_set1_epi8(-128)) : low_words;
      more = left<bits == 3 ? 2 : bits == 5 ? 4 : 0>(high_words);
    }

    // Tables repeat: an index's bits above the code are its neighbours'.
    template <int first, int step, int mask>
    static SLMC_INLINE F table() {
      return _mm512_setr_ps(first, first + (1 & mask) * step, first + (2 & mask) * step, first + (3 & mask) * step,
                            first + (4 & mask) * step, first + (5 & mask) * step, first + (6 & mask) * step,
                            first + (7 & mask) * step, first + (8 & mask) * step, first + (9 & mask) * step,
                            first + (10 & mask) * step, first + (11 & mask) * step, first + (12 & mask) * step,
                            first + (13 & mask) * step, first + (14 & mask) * step, first + (15 & mask) * step);
    }

    // Code p's place in a table of 16 that repeats.
    template <int p>
    SLMC_INLINE I index() const {
      const I low_index = right<low * p>(words);
      if constexpr (high == 0) return low_index;
      else return _mm512_ternarylogic_epi32(_mm512_set1_epi32((1 << low) - 1), low_index, right<p>(more), 0xca);
    }

    template <int p>
    SLMC_INLINE F multiply(F x, F sum) const {
      if constexpr (bits == 8) {
        return fma(to_float(_mm512_srai_epi32(_mm512_slli_epi32(words, 24 - 8 * p), 24)), x, sum);
      } else {
        if constexpr (high == 0) {
          return fma(_mm512_permutexvar_ps(index<p>(), table<-centre, 1, (1 << bits) - 1>()), x, sum);
        } else if constexpr (bits == 6) {
          sum = fma(_mm512_permutexvar_ps(right<2 * p>(more), table<-centre, 16, 3>()), x, sum);
          return fma(_mm512_permutexvar_ps(right<low * p>(words), table<0, 1, 15>()), x, sum);
        } else {  // low bits from one word, the high bit from the other
          if constexpr (bits == 3) return fma(_mm512_permutexvar_ps(index<p>(), table<-centre, 1, 7>()), x, sum);
          return fma(_mm512_permutex2var_ps(table<-centre, 1, 15>(), index<p>(), table<0, 1, 15>()), x, sum);
        }
      }
    }
  };
  // table[index % 16] of every lane
  static constexpr bool kFloatTables = true;
  static SLMC_INLINE F look_up(F table, I index) { return _mm512_permutexvar_ps(index, table); }
};

}  // namespace
}  // namespace slmc::avx512
