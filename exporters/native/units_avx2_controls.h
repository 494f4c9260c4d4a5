// Patterns as byte shuffles on AVX2: which way a matrix goes, and the controls of its units.
#pragma once

#include "vector_avx2.h"
#include "sparse.h"

namespace slmc::avx2 {
namespace {

using I = __m256i;
using F = __m256;

enum Way { kGather, kExpand, kPlain };

constexpr int64_t kBlockUnits = 8;    // whose controls are made together, so that they are read from the first cache
constexpr int64_t kReadBytes = 16;    // of codes, also where a control places fewer

Way way_of(const SparseMatrix& m) {
  if (!m.patterns || m.pattern_rows > 1) return kPlain;
  return m.kept == kUnitInputs / 2 ? kGather : kExpand;
}

// Whether q is read by controls that pick it.
bool is_picked(const SparseMatrix& m) { return m.patterns && m.table->width == 8 && m.kept == kUnitInputs / 2; }

bool is_known(const SparseMatrix& m) {
  const Scales scales = scales_of_group(m.group);
  const int64_t half = m.kept / 2;
  if (m.bits != 4) return false;
  switch (way_of(m)) {
    case kGather: return m.table->width == 8 && scales != kPerEighth;
    case kExpand: return m.table->width == 8;
    default: return half % 16 == 0 && (scales != kPerEighth || half % 32 == 0);
  }
}

// Eight fields of `bits` bits, in whole loads: bytes that met in memory would be waited for.
template <int bits>
SLMC_INLINE uint64_t packed_fields(const uint8_t* at) {
  if constexpr (bits == 3) {
    return at[0] | at[1] << 8 | at[2] << 16;
  } else {
    uint32_t low, high;
    std::memcpy(&low, at, sizeof low);
    std::memcpy(&high, at + bits - 4, sizeof high);
    return low | static_cast<uint64_t>(high) << (8 * (bits - 4));
  }
}

// The same as bytes.
template <int bits>
SLMC_INLINE uint64_t eight_fields(const uint8_t* at) {
  return _pdep_u64(packed_fields<bits>(at), 0x0101010101010101u * ((1u << bits) - 1));
}

// The controls of one unit.
template <int bits, Way way>
SLMC_INLINE void unit_controls(const uint64_t (*controls)[2], const uint8_t* fields, uint8_t* out) {
  for (int half = 0; half < 2; ++half, fields += bits) {
    uint64_t eight = eight_fields<bits>(fields);
    for (int pair = 0; pair < 4; ++pair, eight >>= 16) {
      const uint64_t a = controls[eight & 255][0], b = controls[eight >> 8 & 255][1];
      if constexpr (way == kGather) {
        const uint64_t both = a | b;
        std::memcpy(out, &both, sizeof both);
        out += 8;
      } else {
        std::memcpy(out, &a, sizeof a);
        std::memcpy(out + 8, &b, sizeof b);
        out += 16;
      }
    }
  }
}

// Two of four inputs kept: ranks of three bits become controls without a table in memory.
SLMC_INLINE void unit_controls_2_of_4(const uint8_t* fields, uint8_t* out) {
  // 16 ranks lie in 6 bytes, rank i at bit 3 i: words of two bytes that have it, and what shifts it to the top
  const I where = _mm256_setr_epi8(0, 1, 0, 1, 0, 1, 1, 2, 1, 2, 1, 2, 2, 3, 2, 3,  //
                                   3, 4, 3, 4, 3, 4, 4, 5, 4, 5, 4, 5, 5, 6, 5, 6);
  const I up = _mm256_setr_epi16(1 << 13, 1 << 10, 1 << 7, 1 << 12, 1 << 9, 1 << 6, 1 << 11, 1 << 8,  //
                                 1 << 13, 1 << 10, 1 << 7, 1 << 12, 1 << 9, 1 << 6, 1 << 11, 1 << 8);
  // masks 3, 5, 6, 9, 10, 12: their first and second inputs
  const I places = _mm256_setr_epi8(0, 0, 1, 0, 1, 2, 0, 0, 1, 2, 2, 3, 3, 3, 1, 1,  //
                                    0, 0, 1, 0, 1, 2, 0, 0, 1, 2, 2, 3, 3, 3, 1, 1);
  const I base = _mm256_setr_epi8(0, 0, 4, 4, 8, 8, 12, 12, 0, 0, 4, 4, 8, 8, 12, 12,  //
                                  0, 0, 4, 4, 8, 8, 12, 12, 0, 0, 4, 4, 8, 8, 12, 12);
  for (int half = 0; half < 2; ++half, fields += 6, out += 32) {
    const I packed = _mm256_set1_epi64x(static_cast<int64_t>(packed_fields<6>(fields)));
    const I words = _mm256_shuffle_epi8(packed, where);
    const I ranks = _mm256_and_si256(_mm256_mullo_epi16(words, up), _mm256_set1_epi16(static_cast<int16_t>(0xe000)));
    const I twice = _mm256_mulhi_epu16(ranks, _mm256_set1_epi16(1 << 11 | 1 << 3));  // in both bytes
    const I both = _mm256_or_si256(twice, _mm256_set1_epi16(0x0800));
    _mm256_storeu_si256(reinterpret_cast<I*>(out), _mm256_add_epi8(_mm256_shuffle_epi8(places, both), base));
  }
}

// The controls of so many units of four rows, row by row within a unit.
template <int bits, Way way>
void block_controls(const uint64_t (*controls)[2], const Strip* fields, int64_t u, int64_t units, uint8_t* out) {
  constexpr int64_t bytes = way == kGather ? kUnitInputs / 2 : kUnitInputs;
  for (int64_t i = 0; i < units; ++i)
    for (int r = 0; r < kQuadRows; ++r, out += bytes) {
      const uint8_t* at = fields[r].first + (u + i) * fields[r].stride;
      if constexpr (way == kGather && bits == 6) {
        unit_controls_2_of_4(at, out);
      } else {
        unit_controls<bits, way>(controls, at, out);
      }
    }
}

template <Way way>
void block_controls(const PatternTable& table, const Strip* fields, int64_t u, int64_t units, uint8_t* out) {
  switch (table.field_bits) {
    case 3: return block_controls<3, way>(table.controls, fields, u, units, out);
    case 4: return block_controls<4, way>(table.controls, fields, u, units, out);
    case 5: return block_controls<5, way>(table.controls, fields, u, units, out);
    case 6: return block_controls<6, way>(table.controls, fields, u, units, out);
    default: return block_controls<7, way>(table.controls, fields, u, units, out);
  }
}

}  // namespace
}  // namespace slmc::avx2
