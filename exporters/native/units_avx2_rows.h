// Rows of sparse products on AVX2, unit by unit: a row that picks q, one that places codes, four of one pattern.
#pragma once

#include "units_avx2_controls.h"

namespace slmc::avx2 {
namespace {

template <bool float4>
SLMC_INLINE void split(I packed, I* out) {
  const I low = _mm256_set1_epi8(15);
  out[0] = _mm256_and_si256(packed, low);
  out[1] = _mm256_and_si256(_mm256_srli_epi16(packed, 4), low);
  if constexpr (float4) {
    const __m128i table = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    const I steps = _mm256_broadcastsi128_si256(table);
    out[0] = _mm256_shuffle_epi8(steps, out[0]);
    out[1] = _mm256_shuffle_epi8(steps, out[1]);
  }
}

SLMC_INLINE I load(const void* p) { return _mm256_loadu_si256(static_cast<const I*>(p)); }
SLMC_INLINE I two(const uint8_t* low, const uint8_t* high) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(Vector::sixteen(low)), Vector::sixteen(high), 1);
}
// out[i] = sum of v[i]
SLMC_INLINE void sum4(const F* v, float* out) {
  const F four = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps(four, 1)));
}
SLMC_INLINE I pairs(I codes, I q) { return _mm256_maddubs_epi16(codes, q); }
SLMC_INLINE I add16(I a, I b) { return _mm256_add_epi16(a, b); }
SLMC_INLINE F in_lanes(I sums) { return _mm256_cvtepi32_ps(_mm256_madd_epi16(sums, _mm256_set1_epi16(1))); }
// The factors of the lower and of the upper half of a vector.
SLMC_INLINE F halves(const float* p, int64_t apart) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_broadcast_ss(p)), _mm_broadcast_ss(p + apart), 1);
}

// The q that a control picks of 64 inputs, in the order 0 .. 15, 32 .. 47, 16 .. 31, 48 .. 63.
SLMC_INLINE I picked(const int8_t* q, const uint8_t* controls) {
  const I control = load(controls);
  const I first = _mm256_shuffle_epi8(load(q), control), second = _mm256_shuffle_epi8(load(q + 32), control);
  return _mm256_blend_epi32(first, second, 0xcc);
}

// One row of so many units; `total` grows.
struct SparseRow {
  const uint8_t* codes;
  const uint8_t* controls;
  int64_t code_stride, control_stride;
  const float* factors;
};

template <bool float4, Scales scales>
SLMC_INLINE F gather_row(SparseRow row, const int8_t* q, int64_t units, F total) {
  const I centre = _mm256_set1_epi8(float4 ? 12 : 8);
  for (int64_t u = 0; u < units; ++u) {
    I codes[2], sums[2];
    split<float4>(load(row.codes), codes);
    for (int half = 0; half < 2; ++half) {
      const I some = picked(q + 64 * half, row.controls + 32 * half);
      sums[half] = _mm256_sub_epi16(pairs(codes[half], some), pairs(centre, some));
    }
    if constexpr (scales == kPerUnit) {
      total = _mm256_fmadd_ps(in_lanes(add16(sums[0], sums[1])), _mm256_broadcast_ss(row.factors), total);
    } else {
      total = _mm256_fmadd_ps(in_lanes(sums[0]), _mm256_broadcast_ss(row.factors), total);
      total = _mm256_fmadd_ps(in_lanes(sums[1]), _mm256_broadcast_ss(row.factors + 1), total);
    }
    row.codes += row.code_stride;
    row.controls += row.control_stride;
    row.factors += scales;
    q += kUnitInputs;
  }
  return total;
}

template <bool float4, Scales scales>
SLMC_INLINE F expand_row(SparseRow row, const int8_t* q, const int16_t* start, int64_t step, int64_t units, F total) {
  const I centre = _mm256_set1_epi8(float4 ? 12 : 8);
  for (int64_t u = 0; u < units; ++u) {
    I sums[2][2];  // [half of the unit][inputs 0 .. 31 or 32 .. 63]
    for (int part = 0; part < 2; ++part) {
      I codes[2];
      split<float4>(two(row.codes + 2 * part * step, row.codes + (2 * part + 1) * step), codes);
      for (int half = 0; half < 2; ++half) {
        const I control = load(row.controls + 64 * half + 32 * part);
        const I placed = _mm256_blendv_epi8(_mm256_shuffle_epi8(codes[half], control), centre, control);
        sums[half][part] = pairs(placed, load(q + 64 * half + 32 * part));
      }
    }
    if constexpr (scales == kPerUnit) {
      const I all = add16(add16(sums[0][0], sums[0][1]), add16(sums[1][0], sums[1][1]));
      total = _mm256_fmadd_ps(in_lanes(add16(all, load(start))), _mm256_broadcast_ss(row.factors), total);
    } else if constexpr (scales == kPerHalf) {
      for (int half = 0; half < 2; ++half) {
        const I both = add16(add16(sums[half][0], sums[half][1]), load(start + 16 * half));
        total = _mm256_fmadd_ps(in_lanes(both), _mm256_broadcast_ss(row.factors + half), total);
      }
    } else {
      for (int i = 0; i < 4; ++i) {
        const I sum = add16(sums[i / 2][i % 2], load(start + 16 * i));
        total = _mm256_fmadd_ps(in_lanes(sum), halves(row.factors + 2 * i, 1), total);
      }
    }
    row.codes += row.code_stride;
    row.controls += row.control_stride;
    row.factors += scales;
    q += kUnitInputs;
    start += 16 * (scales == kPerUnit ? 1 : scales == kPerHalf ? 2 : 4);
  }
  return total;
}

// The four rows of a quad; `sixteens` is kept / 32: codes of half a unit, in sixteens.
template <bool float4, Scales scales, int sixteens>
SLMC_INLINE void plain_rows(const SparseRow* rows, const int8_t* q, const int16_t* start, int64_t units, F* totals) {
  constexpr int parts = (sixteens + 1) / 2, vectors = 2 * parts;
  constexpr int starts = scales == kPerUnit ? 1 : scales == kPerHalf ? 2 : vectors;
  F sum_of[kQuadRows];
  const uint8_t* codes_of[kQuadRows];
  const float* factors_of[kQuadRows];
  const int64_t stride = rows[0].code_stride;
  unrolled<kQuadRows>([&](auto r) {
    sum_of[r.value] = totals[r.value];
    codes_of[r.value] = rows[r.value].codes;
    factors_of[r.value] = rows[r.value].factors;
  });
  for (int64_t u = 0; u < units; ++u) {
    unrolled<kQuadRows>([&](auto r) SLMC_LAMBDA {
      const uint8_t* at = codes_of[r.value] + u * stride;
      const float* factors = factors_of[r.value] + u * scales;
      I sums[vectors];  // of the unit's first half, then of its second
      unrolled<parts>([&](auto part) SLMC_LAMBDA {
        constexpr int i = part.value;
        I codes[2];
        if constexpr (2 * i + 1 < sixteens) {
          split<float4>(load(at + 32 * i), codes);
        } else {
          split<float4>(_mm256_zextsi128_si256(Vector::sixteen(at + 32 * i)), codes);
        }
        sums[i] = pairs(codes[0], load(q + 32 * i));
        sums[parts + i] = pairs(codes[1], load(q + 32 * (parts + i)));
      });
      // vectors that share factors meet before they are widened
      unrolled<starts>([&](auto i) SLMC_LAMBDA {
        constexpr int each = vectors / starts, first = i.value * each;
        I sum = add16(sums[first], load(start + 16 * i.value));
        unrolled<each - 1>([&](auto j) { sum = add16(sum, sums[first + 1 + j.value]); });
        F factor;
        if constexpr (scales != kPerEighth) {
          factor = _mm256_broadcast_ss(factors + i.value);
        } else if constexpr (parts == 1) {
          const F four = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(factors + 4 * i.value));
          factor = _mm256_permutevar8x32_ps(four, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
        } else {
          factor = halves(factors + 2 * i.value, 1);
        }
        sum_of[r.value] = _mm256_fmadd_ps(in_lanes(sum), factor, sum_of[r.value]);
      });
    });
    q += 32 * vectors;
    start += 16 * starts;
  }
  unrolled<kQuadRows>([&](auto r) { totals[r.value] = sum_of[r.value]; });
}

}  // namespace
}  // namespace slmc::avx2
