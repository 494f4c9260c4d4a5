// Eight lanes of 32 bits: AVX2 with FMA and F16C.
#pragma once
#include <immintrin.h>

#include "lanes.h"

namespace slmc::avx2 {
namespace {

struct Vector {
  static constexpr int kRegisters = 16;
  static constexpr int kLanes = 8;
  using I = __m256i;
  using F = __m256;

  static constexpr int kRowVectors8 = 2, kTokens8 = 3;    // 12 sums of 16 registers
  static constexpr int kRowVectors32 = 2, kTokens32 = 6;  // likewise
  static constexpr int kProductTokens8 = 8, kProductTokens32 = 8;

  static SLMC_INLINE I load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const I*>(p)); }
  static SLMC_INLINE I load(const int8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const I*>(p)); }
  static SLMC_INLINE I load(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const I*>(p)); }
  static SLMC_INLINE F load(const float* p) { return _mm256_loadu_ps(p); }
  static SLMC_INLINE void store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static SLMC_INLINE void store(void* p, I v) { _mm256_storeu_si256(static_cast<I*>(p), v); }
  static SLMC_INLINE F load_first(const float* p, int count) { return _mm256_maskload_ps(p, first(count)); }
  static SLMC_INLINE void store_first(float* p, F v, int count) { _mm256_maskstore_ps(p, first(count), v); }
  static SLMC_INLINE I first(int count) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane_numbers()); }
  static SLMC_INLINE I lane_numbers() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }

  static SLMC_INLINE F zero() { return _mm256_setzero_ps(); }
  static SLMC_INLINE F set(float v) { return _mm256_set1_ps(v); }
  static SLMC_INLINE I set(int32_t v) { return _mm256_set1_epi32(v); }
  static SLMC_INLINE F add(F a, F b) { return _mm256_add_ps(a, b); }
  static SLMC_INLINE I add(I a, I b) { return _mm256_add_epi32(a, b); }
  static SLMC_INLINE F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static SLMC_INLINE F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static SLMC_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static SLMC_INLINE F fnma(F a, F b, F c) { return _mm256_fnmadd_ps(a, b, c); }
  static SLMC_INLINE F to_float(I v) { return _mm256_cvtepi32_ps(v); }
  static SLMC_INLINE I round(F v) { return _mm256_cvtps_epi32(v); }
  static SLMC_INLINE I and_(I a, I b) { return _mm256_and_si256(a, b); }
  static SLMC_INLINE I or_(I a, I b) { return _mm256_or_si256(a, b); }
  static SLMC_INLINE I sub(I a, I b) { return _mm256_sub_epi32(a, b); }
  template <int n>
  static SLMC_INLINE I right(I v) { return n ? _mm256_srli_epi32(v, n) : v; }
  template <int n>
  static SLMC_INLINE I left(I v) { return n ? _mm256_slli_epi32(v, n) : v; }
  template <int n>
  static SLMC_INLINE I right_signed(I v) { return _mm256_srai_epi32(v, n); }
  static SLMC_INLINE void keep(I&) {}
  // out[i] = in[from[i]] for 16 bytes
  static SLMC_INLINE void shuffle(const int8_t* in, const uint8_t* from, int8_t* out) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in));
    const __m128i places = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_shuffle_epi8(bytes, places));
  }
  static SLMC_INLINE F max_abs(F a, F b) { return _mm256_max_ps(a, _mm256_andnot_ps(_mm256_set1_ps(-0.0f), b)); }

  static SLMC_INLINE float sum(F v) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }
  static SLMC_INLINE int32_t sum(I v) {
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
  }
  static SLMC_INLINE float largest(F v) {
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
  }

  static SLMC_INLINE float half(uint16_t v) { return _cvtsh_ss(v); }
  static SLMC_INLINE F load_halves(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static SLMC_INLINE F load_halves_first(const uint16_t* p, int count) {
    uint16_t copy[kLanes] = {};
    std::memcpy(copy, p, static_cast<size_t>(count) * sizeof *p);
    return load_halves(copy);
  }
  static SLMC_INLINE F load_bytes_first(const uint8_t* p, int count) {
    uint64_t copy = 0;
    std::memcpy(&copy, p, static_cast<size_t>(count));
    return to_float(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(copy))));
  }
  static SLMC_INLINE F low_half(I v) {
    const I words = _mm256_packus_epi32(and_(v, set(0xffff)), set(int32_t{0}));
    return _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(words, 0x08)));
  }
  static SLMC_INLINE void store_bytes(int8_t* p, I v) {
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
  }
  static SLMC_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
  static SLMC_INLINE I ones() { return _mm256_set1_epi8(1); }
  static SLMC_INLINE I broadcast(const int8_t* p) {
    int32_t four;
    std::memcpy(&four, p, sizeof four);
    return set(four);
  }

  static SLMC_INLINE I flip_signs(I codes) { return _mm256_xor_si256(codes, _mm256_set1_epi8(-128)); }
  static constexpr bool kPairs = true, kPanelPairs = false;
  static constexpr int kSlots = 1;
  // Pairs of products meet in 16 bits: 2 * 63 * 127 fits, 2 * 255 * 127 would not. So codes of 8 bits come less 128,
  // and their sign moves to x.
  static constexpr bool kSignedCodes8 = true;
  // Pairs of products of this many vectors fit together in 16 bits.
  template <int bits>
  static constexpr int kPairsTogether = bits == 8 ? 1 : 32767 / (2 * 127 * ((1 << bits) - 1));
  using Pairs = I;
  template <int bits>
  static SLMC_INLINE I pairs(I codes, I x) {
    return bits == 8 ? _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes))
                     : _mm256_maddubs_epi16(codes, x);
  }
  template <int bits>
  static SLMC_INLINE I add_pairs(I held, I codes, I x) {
    return _mm256_add_epi16(held, pairs<bits>(codes, x));
  }
  static SLMC_INLINE I add_widened(I sum, I pairs) {
    return add(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  template <int bits>
  static SLMC_INLINE I dot(I sum, I codes, I x) {
    return add_widened(sum, pairs<bits>(codes, x));
  }

  static constexpr auto list_inputs = slmc::list_inputs;
  static constexpr bool kFloatTables = false;
  static constexpr bool kSignedDots = false;

  // For sparse matrices. a where mask has ones, else b.
  static SLMC_INLINE I choose(I mask, I a, I b) { return or_(and_(mask, a), _mm256_andnot_si256(mask, b)); }
  // table[index % 2^bits] of every byte, of at most 80 entries that are not nothing
  template <int bits>
  static SLMC_INLINE I look_up(const uint8_t* table, I index) {
    index = and_(index, _mm256_set1_epi8((1 << bits) - 1));
    constexpr int sixteens = bits <= 4 ? 1 : bits == 7 ? 5 : 1 << (bits - 4);
    I found = _mm256_shuffle_epi8(both_halves(table), sixteens == 1 ? index : of_sixteen(index, 0));
    for (int i = 1; i < sixteens; ++i)
      found = or_(found, _mm256_shuffle_epi8(both_halves(table + 16 * i), of_sixteen(index, i)));
    return found;
  }
  // Indices 16 i .. 16 i + 15, those of a shuffle; others have their highest bit set, which gives 0.
  static SLMC_INLINE I of_sixteen(I index, int i) {
    const I from = _mm256_sub_epi8(index, _mm256_set1_epi8(static_cast<char>(16 * i)));
    return _mm256_adds_epu8(from, _mm256_set1_epi8(0x70));
  }
  static SLMC_INLINE I both_halves(const void* p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }
  // Four periods of activations: pick gives every lane that of each period which the byte's low bits say.
  template <int period>
  struct Block {
    I low, high;
    explicit SLMC_INLINE Block(const int8_t* q) : low(both_halves(q)), high(period == 8 ? both_halves(q + 16) : low) {}
    SLMC_INLINE I pick(I places) const {
      const I from = and_(places, _mm256_set1_epi8(period - 1));
      if constexpr (period == 4) return _mm256_shuffle_epi8(low, or_(from, Vector::set(0x0c080400)));
      constexpr auto upper = static_cast<int32_t>(0x80800800u);
      return or_(_mm256_shuffle_epi8(low, or_(from, Vector::set(upper))),
                 _mm256_shuffle_epi8(high, or_(from, Vector::set(0x08008080))));
    }
  };
  // The activations of 64 that a mask of 8 bytes keeps, one after another, `count` of them; adds them to the lanes of
  // sum.
  static SLMC_INLINE I gather(const int8_t* q, const uint8_t* mask, int64_t count, int8_t* out, I sum) {
    return gather_by_shuffles<Vector>(q, mask, count, out, sum);
  }

  // 16 bytes at `offset` of 8 rows: out[d] = word d of every row
  static SLMC_INLINE void transpose(const uint8_t* const* rows, int64_t offset, I* out) {
    I twos[4];  // half q of twos[i] is row 4 q + i
    for (int i = 0; i < 4; ++i) {
      const I first_half = _mm256_castsi128_si256(sixteen(rows[i] + offset));
      twos[i] = _mm256_inserti128_si256(first_half, sixteen(rows[4 + i] + offset), 1);
    }
    const I low01 = _mm256_unpacklo_epi32(twos[0], twos[1]), low23 = _mm256_unpacklo_epi32(twos[2], twos[3]);
    const I high01 = _mm256_unpackhi_epi32(twos[0], twos[1]), high23 = _mm256_unpackhi_epi32(twos[2], twos[3]);
    out[0] = _mm256_unpacklo_epi64(low01, low23);
    out[1] = _mm256_unpackhi_epi64(low01, low23);
    out[2] = _mm256_unpacklo_epi64(high01, high23);
    out[3] = _mm256_unpackhi_epi64(high01, high23);
  }
  static SLMC_INLINE __m128i sixteen(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

  template <int low, int high, int part, int first>
  static SLMC_INLINE I add_high_rows(I bytes, I words) {
    return add_high_by_shifts<Vector, low, high, part, first>(bytes, words);
  }

  // The plane's codes as bytes: part j of a chunk has every (8 / low)th code, beginning with j.
  template <int bits>
  static SLMC_INLINE void unpack(const uint8_t* low_plane, const uint8_t* high_plane, I* out) {
    constexpr int low = low_bits(bits), high = high_bits(bits);
    const I packed = load(low_plane);
    if constexpr (low == 8) {
      out[0] = packed;
      return;
    }
    unrolled<8 / low>([&](auto j) {
      const I moved = j.value ? _mm256_srli_epi16(packed, j.value * low) : packed;
      out[j.value] = and_(moved, _mm256_set1_epi8((1 << low) - 1));
    });
    if constexpr (high > 0) {
      const I bits_of_byte = high_bits_of_bytes<high * 8 / low>(high_plane);
      unrolled<8 / low>([&](auto j) {
        constexpr int up = low - high * j.value;
        const I moved = up < 0 ? _mm256_srli_epi16(bits_of_byte, -up) : up ? _mm256_slli_epi16(bits_of_byte, up)
                                                                           : bits_of_byte;
        out[j.value] = or_(out[j.value], and_(moved, _mm256_set1_epi8(((1 << high) - 1) << low)));
      });
    }
  }
  // Every byte of a vector of the low plane has `count` high bits, 2 or 4: here the lowest of a byte each. Bits above
  // them are others'.
  template <int count>
  static SLMC_INLINE I high_bits_of_bytes(const uint8_t* plane) {
    if constexpr (count == 4) {
      const I words = _mm256_cvtepu8_epi16(sixteen(plane));
      return or_(words, _mm256_slli_epi16(words, 4));
    }
    const I words = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(plane)));
    const I spread = or_(words, left<12>(words));
    return or_(spread, left<6>(spread));
  }

  // A chunk's codes as lanes of words; multiply<p> adds x times (code p of each lane - centre).
  template <int bits>
  struct Words {
    static constexpr int low = low_bits(bits), high = high_bits(bits), centre = 1 << (bits - 1);
    I words, more;

    SLMC_INLINE void read(const uint8_t* low_plane, const uint8_t* high_plane) {
      I high_words = _mm256_setzero_si256();
      if constexpr (high * 32 / low == 8) {
        int64_t eight;
        std::memcpy(&eight, high_plane, sizeof eight);
        high_words = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(eight));
      }
      if constexpr (high * 32 / low == 16) high_words = _mm256_cvtepu16_epi32(sixteen(high_plane));
      take(load(low_plane), high_words);
    }
    // A lane's words, its high bits from the lowest on; bits above are not looked at.
    SLMC_INLINE void take(I low_words, I high_words) {
      words = bits == 8 ? flip_signs(low_words) : low_words;
      more = high_words;
    }

    template <int p>
    SLMC_INLINE F multiply(F x, F sum) const {
      if constexpr (bits == 8) {
        return fma(to_float(_mm256_srai_epi32(_mm256_slli_epi32(words, 24 - 8 * p), 24)), x, sum);
      } else if constexpr (bits < 3) {  // a table that repeats: bits above the code are its neighbours'
        return fma(_mm256_permutevar8x32_ps(table<(1 << bits) - 1>(), right<low * p>(words)), x, sum);
      } else {
        I code = and_(right<low * p>(words), set((1 << low) - 1));
        if constexpr (high > 0) code = or_(code, left<low>(and_(right<high * p>(more), set((1 << high) - 1))));
        if constexpr (bits == 3) return fma(_mm256_permutevar8x32_ps(table<7>(), code), x, sum);
        return fma(sub(to_float(code), Vector::set(static_cast<float>(centre))), x, sum);
      }
    }
    template <int mask>
    static SLMC_INLINE F table() {
      return _mm256_setr_ps(-centre, (1 & mask) - centre, (2 & mask) - centre, (3 & mask) - centre, (4 & mask) - centre,
                            (5 & mask) - centre, (6 & mask) - centre, (7 & mask) - centre);
    }
  };
};

}  // namespace
}  // namespace slmc::avx2
