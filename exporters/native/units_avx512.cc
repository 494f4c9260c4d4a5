// Sparse products on AVX-512 with VBMI, VBMI2, VNNI and GFNI.
#include <immintrin.h>

#include <limits>

#include "kernels.h"
#include "patterns_avx512.h"
#include "units-inl.h"

namespace slmc::avx512 {
namespace {

struct Common {
  static void decode_patterns(const PatternTable& table, const uint8_t* fields, int64_t units, uint8_t* masks) {
    wide_decode_patterns(table, fields, units, masks);
  }
  static SLMC_INLINE void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
  static SLMC_INLINE __m512 halves(const uint16_t* p, int64_t count) {
    const __mmask16 some = static_cast<__mmask16>(_bzhi_u32(0xffff, static_cast<unsigned>(count < 16 ? count : 16)));
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(some, p));
  }
  // out[f] = scales[group of factor f] * scale_x[f], nothing behind the last group; room for a vector lies behind both.
  // `per_unit` is group * factors per unit, so that factor f lies in group f * 128 / per_unit.
  static void fill_factors(const uint16_t* scales, int64_t groups, int64_t per_unit, const float* scale_x,
                           int64_t count, float* buffer, float* out) {
    if (per_unit == kUnitInputs) {
      for (int64_t f = 0; f < count; f += 16) {
        const int64_t left = groups > f ? groups - f : 0;
        _mm512_storeu_ps(out + f, _mm512_mul_ps(halves(scales + f, left), _mm512_loadu_ps(scale_x + f)));
      }
      return;
    }
    const int64_t each = per_unit / kUnitInputs;  // factors of a group
    if (each == 2) {
      const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
      for (int64_t f = 0; f < count; f += 16) {
        const __m512 scale = halves(scales + f / 2, groups > f / 2 ? groups - f / 2 : 0);
        const __m512 spread = _mm512_permutexvar_ps(twice, scale);
        _mm512_storeu_ps(out + f, _mm512_mul_ps(spread, _mm512_loadu_ps(scale_x + f)));
      }
      return;
    }
    for (int64_t g = 0; g < groups; g += 16) _mm512_storeu_ps(buffer + g, halves(scales + g, groups - g));
    for (int64_t f = 0, g = 0; f < count; f += each, ++g) {
      const __m512 scale = _mm512_set1_ps(g < groups ? buffer[g] : 0.0f);
      for (int64_t i = f; i < f + each && i < count; i += 16) _mm512_storeu_ps(out + i, scale);
    }
    for (int64_t f = 0; f < count; f += 16)
      _mm512_storeu_ps(out + f, _mm512_mul_ps(_mm512_loadu_ps(out + f), _mm512_loadu_ps(scale_x + f)));
  }
};

constexpr int64_t kUpperNibbles = 0x1020408000000000;  // a bit matrix of gf2p8affine: a shift and a mask in one

struct Wide : Common {
  static constexpr int kBytes = 64, kLanes = 16;
  using I = __m512i;
  using F = __m512;
  using Part = __mmask64;

  static SLMC_INLINE Part part(int half) { return _bzhi_u64(~uint64_t{0}, static_cast<unsigned>(half)); }
  static SLMC_INLINE I load(const uint8_t* p, Part part) { return _mm512_maskz_loadu_epi8(part, p); }
  static SLMC_INLINE I load(const void* p) { return _mm512_loadu_si512(p); }
  static SLMC_INLINE void store(void* p, I v) { _mm512_storeu_si512(p, v); }
  static SLMC_INLINE I nothing() { return _mm512_setzero_si512(); }
  static SLMC_INLINE I set(int byte) { return _mm512_set1_epi8(static_cast<char>(byte)); }
  static SLMC_INLINE I add(I a, I b) { return _mm512_add_epi32(a, b); }
  static SLMC_INLINE I times(I a, int b) { return _mm512_mullo_epi32(a, _mm512_set1_epi32(b)); }
  static SLMC_INLINE F zero() { return _mm512_setzero_ps(); }
  static SLMC_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static SLMC_INLINE F to_float(I v) { return _mm512_cvtepi32_ps(v); }
  static SLMC_INLINE void split(I packed, I* out) {
    out[1] = _mm512_gf2p8affine_epi64_epi8(packed, _mm512_set1_epi64(kUpperNibbles), 0);
    out[0] = _mm512_and_si512(packed, set(15));
  }
  static SLMC_INLINE I float4(I codes) {
    const __m128i table = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), codes);
  }
  template <int fill>
  static SLMC_INLINE I expand(I codes, const uint8_t* mask) {
    uint64_t places;
    std::memcpy(&places, mask, sizeof places);
    return _mm512_mask_expand_epi8(set(fill), places, codes);
  }
  // In assembly, because GCC 12 copies every sum around its own builtin, which costs more than the product.
  static SLMC_INLINE I dot(I sum, I codes, I q) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(q));
    return sum;
  }
  template <int count>
  static SLMC_INLINE F spread(const float* p) {
    if constexpr (count == 1) return _mm512_set1_ps(*p);
    const __m512i lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return _mm512_permutexvar_ps(lane, _mm512_castps128_ps512(_mm_loadu_ps(p)));
  }
  static SLMC_INLINE void sum4(const F* v, float* out) {
    for (int r = 0; r < 4; ++r) out[r] = _mm512_reduce_add_ps(v[r]);
  }
  static SLMC_INLINE void gather(const int8_t* q, const uint8_t* mask, int8_t* out) {
    uint64_t places;
    std::memcpy(&places, mask, sizeof places);
    store(out, _mm512_maskz_compress_epi8(places, load(q)));
  }
};

// For halves of up to 32 codes.
struct Narrow : Common {
  static constexpr int kBytes = 32, kLanes = 8;
  using I = __m256i;
  using F = __m256;
  using Part = __mmask32;

  static SLMC_INLINE Part part(int half) { return _bzhi_u32(~uint32_t{0}, static_cast<unsigned>(half)); }
  static SLMC_INLINE I load(const uint8_t* p, Part part) { return _mm256_maskz_loadu_epi8(part, p); }
  static SLMC_INLINE I load(const void* p) { return _mm256_loadu_si256(static_cast<const I*>(p)); }
  static SLMC_INLINE void store(void* p, I v) { _mm256_storeu_si256(static_cast<I*>(p), v); }
  static SLMC_INLINE I nothing() { return _mm256_setzero_si256(); }
  static SLMC_INLINE I set(int byte) { return _mm256_set1_epi8(static_cast<char>(byte)); }
  static SLMC_INLINE I add(I a, I b) { return _mm256_add_epi32(a, b); }
  static SLMC_INLINE I times(I a, int b) { return _mm256_mullo_epi32(a, _mm256_set1_epi32(b)); }
  static SLMC_INLINE F zero() { return _mm256_setzero_ps(); }
  static SLMC_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static SLMC_INLINE F to_float(I v) { return _mm256_cvtepi32_ps(v); }
  static SLMC_INLINE void split(I packed, I* out) {
    out[1] = _mm256_gf2p8affine_epi64_epi8(packed, _mm256_set1_epi64x(kUpperNibbles), 0);
    out[0] = _mm256_and_si256(packed, set(15));
  }
  static SLMC_INLINE I float4(I codes) {
    const __m128i table = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), codes);
  }
  static SLMC_INLINE I dot(I sum, I codes, I q) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(q));
    return sum;
  }
  template <int count>
  static SLMC_INLINE F spread(const float* p) {
    if constexpr (count == 1) return _mm256_set1_ps(*p);
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
  }
  static SLMC_INLINE void sum4(const F* v, float* out) {
    const F four = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps(four, 1)));
  }
  static SLMC_INLINE void gather(const int8_t* q, const uint8_t* mask, int8_t* out) {
    uint64_t places;
    std::memcpy(&places, mask, sizeof places);
    const __m512i kept = _mm512_maskz_compress_epi8(places, _mm512_loadu_si512(q));
    store(out, _mm512_castsi512_si256(kept));
  }
};

// x [length] of a block to 127 steps either way; returns the step, NaN where x has an infinity or a NaN.
float quantise(const float* x, int64_t length, int8_t* q) {
  __m512 largest = _mm512_setzero_ps();
  __m512 spoilt = _mm512_setzero_ps();  // 0 * x is 0 where x is finite; the largest forgets a NaN
  for (int64_t k = 0; k < length; k += 16) {
    const __m512 values = _mm512_loadu_ps(x + k);
    largest = _mm512_max_ps(largest, _mm512_abs_ps(values));
    spoilt = _mm512_fmadd_ps(values, _mm512_setzero_ps(), spoilt);
  }
  if (_mm512_reduce_add_ps(spoilt) != 0) {
    std::memset(q, 0, length);
    return std::numeric_limits<float>::quiet_NaN();
  }
  const float most = _mm512_reduce_max_ps(largest);
  const __m512 inverse = _mm512_set1_ps(steps_per_unit(most));
  for (int64_t k = 0; k < length; k += 16) {
    const __m512i steps = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + k), inverse));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q + k), _mm512_cvtsepi32_epi8(steps));
  }
  return most / 127.0f;
}

bool expands(const SparseMatrix& m) { return m.patterns && m.pattern_rows == 1; }

const SparseInput* prepare(const SparseMatrix& m, const float* x, int64_t tokens, Arena& arena) {
  const Scales scales = scales_of_group(m.group);
  const int64_t half = m.kept / 2;
  if (m.bits != 4 && m.bits != 8) return nullptr;
  if (!expands(m) && scales == kPerEighth && half != 32 && half != 64) return nullptr;  // lanes would straddle groups
  const int64_t block = m.group < kActivationGroup ? m.group : kActivationGroup;
  const int64_t factors_of_row = m.units * scales, room = factors_of_row + 32;
  const int64_t each = kUnitInputs / scales;  // inputs of a factor
  auto* q = arena.take<int8_t>(tokens * m.padded());
  auto* factors = arena.take<float>(tokens * room);
  auto* padded = arena.take<float>(m.padded());
  for (int64_t t = 0; t < tokens; ++t) {
    std::memcpy(padded, x + t * m.K, m.K * sizeof(float));
    std::memset(padded + m.K, 0, (m.padded() - m.K) * sizeof(float));
    float* of_token = factors + t * room;
    std::memset(of_token + factors_of_row, 0, 32 * sizeof(float));
    for (int64_t k = 0; k < m.padded(); k += block) {
      const float scale = quantise(padded + k, block, q + t * m.padded() + k);
      for (int64_t i = 0; i < block; i += each) of_token[(k + i) / each] = scale;
    }
  }
  return new (arena.take<SparseInput>(1)) SparseInput{tokens, scales, q, factors};
}

void multiply(const SparseMatrix& m, const SparseInput& in, float* y, int64_t first, int64_t last) {
  if (expands(m)) return multiply_rows<Wide, true>(m, in, y, first, last);
  if (m.kept / 2 <= 32) {
    if (m.patterns) return multiply_rows<Narrow, false>(m, in, y, first, last);
  }
  multiply_rows<Wide, false>(m, in, y, first, last);
}

}  // namespace

const SparseKernels units = {prepare, multiply};

}  // namespace slmc::avx512
