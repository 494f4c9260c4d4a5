#include "ternary.h"

#include <algorithm>
#include <cstring>

#include "elementary.h"
#include "isa.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace slmc {
namespace {

constexpr int64_t kDigits = 5;
constexpr int64_t kTokensAtOnce = 4;     // tokens that share the decoded digits of a word
constexpr int64_t kWordsPerWidening = 12;  // 5 * 12 sums of at most 2 * 2 * 128 stay within 16 bits

// 3 f_i = 256 digit_i + f_(i+1), so that products of the fractions themselves will do, two in place of comparisons:
//   256 sum_i digit_i x_i = 3 sum_i f_i x_i - sum_i f_(i+1) x_i
// Sums are kept modulo 2^32, which loses nothing where 256 * 2 * 128 times the number of inputs is less than 2^31.
constexpr int64_t kInputsByFractions = 32767;

inline const uint8_t* tile_at(const TernaryPart& part, int64_t row) {
  return part.codes + row / kTernaryRows * part.words * kTernaryBytes;
}

inline void keep(const TernaryPart& part, int64_t row, int64_t token, const int32_t* sums) {
  const int64_t rows = std::min(kTernaryRows, part.N - row);
  std::memcpy(part.sums + token * part.N + row, sums, rows * sizeof(int32_t));
}

// In loops that compilers vectorise.
void sums_portable(const TernaryPart& part) {
  for (int64_t row = part.first; row < part.last; row += kTernaryRows)
    for (int64_t token = 0; token < part.tokens; ++token) {
      const uint8_t* tile = tile_at(part, row);
      const int8_t* x = part.x + token * part.words * kTernaryInputs;
      int32_t sums[kTernaryRows] = {};
      for (int64_t start = 0; start < part.words; start += kWordsPerWidening) {
        int16_t narrow[kTernaryBytes] = {};
        const int64_t end = std::min(part.words, start + kWordsPerWidening);
        for (int64_t w = start; w < end; ++w) {
          uint8_t f[kTernaryBytes];
          std::memcpy(f, tile + w * kTernaryBytes, kTernaryBytes);
          for (int64_t i = 0; i < kDigits; ++i) {
            int8_t inputs[kTernaryBytes];
            for (int64_t r = 0; r < kTernaryRows; ++r) std::memcpy(inputs + 4 * r, x + w * kTernaryInputs + 4 * i, 4);
            SLMC_LANES
            for (int64_t b = 0; b < kTernaryBytes; ++b) {
              const int16_t digit = static_cast<int16_t>((f[b] >= 86) + (f[b] >= 171));
              narrow[b] = static_cast<int16_t>(narrow[b] + digit * inputs[b]);
              f[b] = static_cast<uint8_t>(3 * f[b]);
            }
          }
        }
        for (int64_t b = 0; b < kTernaryBytes; ++b) sums[b / 4] += narrow[b];
      }
      keep(part, row, token, sums);
    }
}

#if defined(__x86_64__)
#define SLMC_AVX2 __attribute__((target("avx2")))
#define SLMC_VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

template <int tokens>
SLMC_AVX2 void tile_avx2(const TernaryPart& part, int64_t row, int64_t token) {
  const uint8_t* tile = tile_at(part, row);
  const int64_t length = part.words * kTernaryInputs;
  const int8_t* x = part.x + token * length;
  const __m256i ones = _mm256_set1_epi16(1), flip = _mm256_set1_epi8(-128), none = _mm256_setzero_si256();
  const __m256i one_third = _mm256_set1_epi8(85 - 128), two_thirds = _mm256_set1_epi8(static_cast<char>(170 - 128));
  for (int half = 0; half < 2; ++half) {
    __m256i wide[tokens];
    for (auto& sum : wide) sum = none;
    for (int64_t start = 0; start < part.words; start += kWordsPerWidening) {
      __m256i narrow[tokens];
      for (auto& sum : narrow) sum = none;
      const int64_t end = std::min(part.words, start + kWordsPerWidening);
      for (int64_t w = start; w < end; ++w) {
        const auto* from = reinterpret_cast<const __m256i*>(tile + w * kTernaryBytes) + half;
        __m256i f = _mm256_xor_si256(_mm256_loadu_si256(from), flip);  // less 128, which tripling keeps
        for (int i = 0; i < kDigits; ++i) {
          const __m256i minus = _mm256_add_epi8(_mm256_cmpgt_epi8(f, one_third), _mm256_cmpgt_epi8(f, two_thirds));
          const __m256i digit = _mm256_sub_epi8(none, minus);
          for (int t = 0; t < tokens; ++t) {
            int32_t four;
            std::memcpy(&four, x + t * length + w * kTernaryInputs + 4 * i, 4);
            narrow[t] = _mm256_add_epi16(narrow[t], _mm256_maddubs_epi16(digit, _mm256_set1_epi32(four)));
          }
          f = _mm256_add_epi8(_mm256_add_epi8(f, f), f);
        }
      }
      for (int t = 0; t < tokens; ++t) wide[t] = _mm256_add_epi32(wide[t], _mm256_madd_epi16(narrow[t], ones));
    }
    alignas(32) int32_t sums[kTernaryRows / 2];
    for (int t = 0; t < tokens; ++t) {
      _mm256_store_si256(reinterpret_cast<__m256i*>(sums), wide[t]);
      const int64_t at = row + half * 8, rows = std::min<int64_t>(8, part.N - at);
      if (rows > 0) std::memcpy(part.sums + (token + t) * part.N + at, sums, rows * sizeof(int32_t));
    }
  }
}

template <int tokens>
SLMC_VNNI void tile_avx512(const TernaryPart& part, int64_t row, int64_t token) {
  const uint8_t* tile = tile_at(part, row);
  const int64_t length = part.words * kTernaryInputs;
  const int8_t* x = part.x + token * length;
  const __m512i ones = _mm512_set1_epi8(1), one_third = _mm512_set1_epi8(86);
  const __m512i two_thirds = _mm512_set1_epi8(static_cast<char>(171));
  __m512i sums[tokens][2];
  for (auto& sum : sums) sum[0] = sum[1] = _mm512_setzero_si512();
  for (int64_t w = 0; w < part.words; ++w) {
    _mm_prefetch(reinterpret_cast<const char*>(tile + w * kTernaryBytes + 2048), _MM_HINT_T0);
    __m512i f = _mm512_loadu_si512(tile + w * kTernaryBytes);
    for (int i = 0; i < kDigits; ++i) {
      const __mmask64 above = _mm512_cmpge_epu8_mask(f, two_thirds);
      __m512i digit = _mm512_maskz_mov_epi8(_mm512_cmpge_epu8_mask(f, one_third), ones);
      digit = _mm512_mask_add_epi8(digit, above, digit, ones);
      for (int t = 0; t < tokens; ++t) {
        int32_t four;
        std::memcpy(&four, x + t * length + w * kTernaryInputs + 4 * i, 4);
        sums[t][i % 2] = _mm512_dpbusd_epi32(sums[t][i % 2], digit, _mm512_set1_epi32(four));
      }
      f = _mm512_add_epi8(_mm512_add_epi8(f, f), f);
    }
  }
  const int64_t rows = std::min(kTernaryRows, part.N - row);
  const auto mask = static_cast<__mmask16>((1u << rows) - 1);
  for (int t = 0; t < tokens; ++t)
    _mm512_mask_storeu_epi32(part.sums + (token + t) * part.N + row, mask, _mm512_add_epi32(sums[t][0], sums[t][1]));
}

// One token by the fractions.
SLMC_VNNI void token_avx512(const TernaryPart& part, int64_t row, int64_t token) {
  const uint8_t* tile = tile_at(part, row);
  const int8_t* x = part.x + token * part.words * kTernaryInputs;
  __m512i now[kDigits], next[kDigits];
  for (int i = 0; i < kDigits; ++i) now[i] = next[i] = _mm512_setzero_si512();
  for (int64_t w = 0; w < part.words; ++w) {
    _mm_prefetch(reinterpret_cast<const char*>(tile + w * kTernaryBytes + 4096), _MM_HINT_T0);
    __m512i f = _mm512_loadu_si512(tile + w * kTernaryBytes);
    for (int i = 0; i < kDigits; ++i) {
      int32_t four;
      std::memcpy(&four, x + w * kTernaryInputs + 4 * i, 4);
      now[i] = _mm512_dpbusd_epi32(now[i], f, _mm512_set1_epi32(four));
      f = _mm512_add_epi8(_mm512_add_epi8(f, f), f);
      next[i] = _mm512_dpbusd_epi32(next[i], f, _mm512_set1_epi32(four));
    }
  }
  for (int i = 1; i < kDigits; ++i) {
    now[0] = _mm512_add_epi32(now[0], now[i]);
    next[0] = _mm512_add_epi32(next[0], next[i]);
  }
  const __m512i thrice = _mm512_add_epi32(_mm512_add_epi32(now[0], now[0]), now[0]);
  const __m512i sums = _mm512_maskz_srai_epi32(0xffff, _mm512_sub_epi32(thrice, next[0]), 8);
  const int64_t rows = std::min(kTernaryRows, part.N - row);
  _mm512_mask_storeu_epi32(part.sums + token * part.N + row, static_cast<__mmask16>((1u << rows) - 1), sums);
}
#elif defined(__aarch64__)
// Four rows of one token: digits by comparisons, sums of 16 bits.
void quarter_neon(const TernaryPart& part, const uint8_t* codes, const int8_t* x, int32_t* sums) {
  const uint8x16_t one_third = vdupq_n_u8(86), two_thirds = vdupq_n_u8(171);
  int32x4_t wide[2] = {vdupq_n_s32(0), vdupq_n_s32(0)};
  for (int64_t start = 0; start < part.words; start += kWordsPerWidening) {
    int16x8_t narrow[2] = {vdupq_n_s16(0), vdupq_n_s16(0)};
    const int64_t end = std::min(part.words, start + kWordsPerWidening);
    for (int64_t w = start; w < end; ++w) {
      uint8x16_t f = vld1q_u8(codes + w * kTernaryBytes);
      for (int64_t i = 0; i < kDigits; ++i) {
        int32_t four;
        std::memcpy(&four, x + w * kTernaryInputs + 4 * i, 4);
        const int8x8_t inputs = vreinterpret_s8_s32(vdup_n_s32(four));
        const int8x16_t minus = vreinterpretq_s8_u8(vaddq_u8(vcgeq_u8(f, one_third), vcgeq_u8(f, two_thirds)));
        narrow[0] = vmlsl_s8(narrow[0], vget_low_s8(minus), inputs);
        narrow[1] = vmlsl_s8(narrow[1], vget_high_s8(minus), inputs);
        f = vaddq_u8(vaddq_u8(f, f), f);
      }
    }
    for (int h = 0; h < 2; ++h) wide[h] = vpadalq_s16(wide[h], narrow[h]);
  }
  vst1q_s32(sums, vpaddq_s32(wide[0], wide[1]));
}

void token_neon(const TernaryPart& part, int64_t row, int64_t token) {
  int32_t sums[kTernaryRows];
  const int8_t* x = part.x + token * part.words * kTernaryInputs;
  for (int64_t q = 0; q < 4; ++q) quarter_neon(part, tile_at(part, row) + 16 * q, x, sums + 4 * q);
  keep(part, row, token, sums);
}

void several_neon(const TernaryPart& part, int64_t row, int64_t token) {
  for (int64_t t = 0; t < kTokensAtOnce; ++t) token_neon(part, row, token + t);
}
#endif

#if defined(__x86_64__) || defined(__aarch64__)
template <void (*several)(const TernaryPart&, int64_t, int64_t), void (*one)(const TernaryPart&, int64_t, int64_t)>
void each_tile(const TernaryPart& part) {
  for (int64_t row = part.first; row < part.last; row += kTernaryRows) {
    int64_t token = 0;
    for (; token + kTokensAtOnce <= part.tokens; token += kTokensAtOnce) several(part, row, token);
    for (; token < part.tokens; ++token) one(part, row, token);
  }
}
#endif

}  // namespace

void ternary_sums(const TernaryPart& part) {
#if defined(__x86_64__)
  const bool by_fractions = part.words * kTernaryInputs <= kInputsByFractions;
  if (isa() >= kAvx512 && by_fractions) return each_tile<tile_avx512<kTokensAtOnce>, token_avx512>(part);
  if (isa() >= kAvx512) return each_tile<tile_avx512<kTokensAtOnce>, tile_avx512<1>>(part);
  if (isa() != kPortable) return each_tile<tile_avx2<kTokensAtOnce>, tile_avx2<1>>(part);
#elif defined(__aarch64__)
  [[maybe_unused]] const bool by_fractions = part.words * kTernaryInputs <= kInputsByFractions;
#if !defined(SLMC_WITHOUT_NEON_DOT)
  if (isa() == kNeonDot && by_fractions) return ternary_sums_neon_dot(part);
#endif
  if (isa() != kPortable) return each_tile<several_neon, token_neon>(part);
#endif
  sums_portable(part);
}

}  // namespace slmc
