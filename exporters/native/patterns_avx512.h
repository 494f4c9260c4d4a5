// Masks from pattern fields by AVX-512 with VBMI.
#pragma once
#include <immintrin.h>

#include "sparse.h"

namespace slmc {
namespace {

// As decode_patterns, in whole vectors: 64 bytes behind the last mask are written.
inline void wide_decode_patterns(const PatternTable& table, const uint8_t* fields, int64_t units, uint8_t* masks) {
  if (table.width != 8) return decode_patterns(table, fields, units, masks);
  const int bits = table.field_bits;
  const __m512i to_words = _mm512_loadu_si512(table.spread), shifts = _mm512_loadu_si512(table.offsets);
  const __m512i low = _mm512_loadu_si512(table.found), high = _mm512_loadu_si512(table.found + 64);
  for (int64_t i = 0, count = units * kMaskBytes; i < count; i += 64) {
    const int64_t left = count - i < 64 ? count - i : 64;
    const __mmask64 bytes = _bzhi_u64(~uint64_t{0}, static_cast<unsigned>(left / 8 * bits));
    const __m512i packed = _mm512_maskz_loadu_epi8(bytes, fields + i / 8 * bits);
    const __m512i index = _mm512_multishift_epi64_epi8(shifts, _mm512_permutexvar_epi8(to_words, packed));
    // looks at seven bits of an index; the table repeats. Stores under a mask are slow, and slow to be read again.
    _mm512_storeu_si512(masks + i, _mm512_permutex2var_epi8(low, index, high));
  }
}

}  // namespace
}  // namespace slmc
