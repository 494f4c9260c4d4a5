// Attention on AVX-512.
#include "attention-inl.h"
#include "kernels.h"
#include "vector_avx512.h"

namespace slmc::avx512 {
namespace {

struct AttentionVector : Vector {
  static constexpr int kQueries = 2;  // 16 sums of 32 registers
  static SLMC_INLINE F max(F a, F b) { return _mm512_max_ps(a, b); }
  static SLMC_INLINE F as_float(I v) { return _mm512_castsi512_ps(v); }
  static SLMC_INLINE I flip(I v) { return _mm512_xor_si512(v, _mm512_set1_epi8(-128)); }
  // 16 bytes at `offset` of 4 rows: out has a word of four bytes per column
  static SLMC_INLINE void interleave(const uint8_t* const* rows, int64_t offset, I* out) {
    const auto row = [&](int i) SLMC_LAMBDA {
      return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[i] + offset));
    };
    I v = _mm512_castsi128_si512(row(0));
    v = _mm512_inserti32x4(v, row(1), 1);
    v = _mm512_inserti32x4(v, row(2), 2);
    v = _mm512_inserti32x4(v, row(3), 3);
    const __m128i steps = _mm_setr_epi8(0, 16, 32, 48, 1, 17, 33, 49, 2, 18, 34, 50, 3, 19, 35, 51);
    const I from = _mm512_add_epi32(_mm512_broadcast_i32x4(steps),
                                    _mm512_setr_epi32(0, 0, 0, 0, 0x04040404, 0x04040404, 0x04040404, 0x04040404,
                                                      0x08080808, 0x08080808, 0x08080808, 0x08080808, 0x0c0c0c0c,
                                                      0x0c0c0c0c, 0x0c0c0c0c, 0x0c0c0c0c));
    out[0] = _mm512_permutexvar_epi8(from, v);
  }
};

}  // namespace

const AttentionKernels attention = attention_kernels_of<AttentionVector>();

}  // namespace slmc::avx512
