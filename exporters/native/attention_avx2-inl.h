// What attention needs of 256-bit vectors beyond their type, whichever way that multiplies bytes.
#pragma once
#include "attention-inl.h"
#include "vector_avx2.h"

namespace slmc {
namespace {

template <typename Base>
struct AttentionVector256 : Base {
  using I = __m256i;
  using F = __m256;
  static constexpr int kQueries = 1;  // 8 sums of 16 registers
  static SLMC_INLINE F max(F a, F b) { return _mm256_max_ps(a, b); }
  static SLMC_INLINE F as_float(I v) { return _mm256_castsi256_ps(v); }
  static SLMC_INLINE I flip(I v) { return Base::flip_signs(v); }
  // 16 bytes at `offset` of 4 rows: out has a word of four bytes per column
  static SLMC_INLINE void interleave(const uint8_t* const* rows, int64_t offset, I* out) {
    const auto row = [&](int i) SLMC_LAMBDA {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[i] + offset));
    };
    const __m128i low01 = _mm_unpacklo_epi8(row(0), row(1)), low23 = _mm_unpacklo_epi8(row(2), row(3));
    const __m128i high01 = _mm_unpackhi_epi8(row(0), row(1)), high23 = _mm_unpackhi_epi8(row(2), row(3));
    out[0] = _mm256_set_m128i(_mm_unpackhi_epi16(low01, low23), _mm_unpacklo_epi16(low01, low23));
    out[1] = _mm256_set_m128i(_mm_unpackhi_epi16(high01, high23), _mm_unpacklo_epi16(high01, high23));
  }
};

}  // namespace
}  // namespace slmc
