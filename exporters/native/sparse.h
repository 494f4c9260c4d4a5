// N:M matrices as stored (exporters/formats/nm.py, units.py, patterns.py), and their kernels.
//
//   w[n, k] = scales[n, g] * step(code[n, k]) where k is kept, else 0;  g = k / group
//
// Rows are padded to units of 128 inputs. A unit keeps `kept` codes in the inputs' order; in a plane of b bits byte i
// holds codes i, i + L, i + 2 L, ... with L = kept * b / 8. Tiles have 16 rows: see `tiled`.
#pragma once
#include <vector>

#include "matrix.h"

namespace slmc {

constexpr int64_t kUnitInputs = 128;
constexpr int kMaskBytes = kUnitInputs / 8;  // of a unit

// What the fields of a pattern plane stand for.
struct PatternTable {
  int width = 0;       // inputs of a field, 8 or 16
  int field_bits = 0;
  std::vector<uint16_t> masks;  // of every field; empty where fields are the masks themselves
  // For vectors of fields of 8 inputs: where each word's bytes lie, its fields' first bits, the masks, repeated.
  alignas(64) uint8_t spread[64] = {}, offsets[64] = {}, found[128] = {};
  // For tiles of 16 rows: of a period's rank, which repeat, kept places 2 i and, four bits up, 2 i + 1.
  uint8_t places[4][128] = {};
  int period = 0, rank_bits = 0;

  PatternTable() = default;
  PatternTable(int kept, int period);
  int64_t unit_bytes() const { return kUnitInputs / width * field_bits / 8; }
};

struct SparseMatrix {
  const uint8_t* codes = nullptr;
  const uint8_t* high = nullptr;      // null but for 3, 5 and 6 bits
  const uint8_t* patterns = nullptr;  // null where everything is kept
  const uint16_t* scales = nullptr;   // float16 [N, groups]
  const PatternTable* table = nullptr;
  int64_t N = 0, K = 0, group = 0, groups = 0, units = 0;
  int64_t kept = 0;  // of a unit
  int64_t pattern_rows = 1;
  int64_t tiled = 0;  // rows, a multiple of kTile, that lie in tiles of 16 (exporters/formats/sparse_tiles.py)
  int bits = 0;
  bool float4 = false;
  bool quads = false;  // rows lie as quads.h says
  bool words = false;  // rows share a pattern, and codes of all rows lie in words
  // Whether sums of tiles end every 16 inputs, of codes that a table turns to steps; they may share a pattern too.
  bool short_sums = false;

  SLMC_INLINE int64_t padded() const { return units * kUnitInputs; }
  SLMC_INLINE int64_t code_bytes() const { return kept * low_bits(bits) / 8; }  // of a unit
  SLMC_INLINE int64_t high_bytes() const { return kept * high_bits(bits) / 8; }
  SLMC_INLINE int64_t factor_at(int64_t n, int64_t g) const { return slmc::factor_at(n, g, groups, tiled); }
};

// The ranks of so many bits of `count` periods, a byte each; count is a multiple of eight.
SLMC_INLINE void decode_ranks(int bits, const uint8_t* fields, int64_t count, uint8_t* ranks) {
  for (int64_t i = 0; i < count; i += 8, fields += bits) {  // eight ranks are `bits` bytes
    uint64_t packed = 0;
    std::memcpy(&packed, fields, bits);
    for (int r = 0; r < 8; ++r, packed >>= bits) ranks[i + r] = static_cast<uint8_t>(packed & ((1u << bits) - 1));
  }
}

// The masks of `count` units from their fields: kMaskBytes each, bit 0 of byte 0 for the first input.
void decode_patterns(const PatternTable& table, const uint8_t* fields, int64_t count, uint8_t* masks);

// Row n, not of a tile, as bytes, 128 + step of every input [padded]; masks as of that row's units.
void decode_sparse_row(const SparseMatrix& m, int64_t n, const uint8_t* masks, uint8_t* row);

// Likewise rows n .. n + 15 of a tile, one after another; masks of a shared pattern.
void decode_sparse_tile(const SparseMatrix& m, int64_t n, const uint8_t* masks, uint8_t* rows);

// The masks of row n, [units * kMaskBytes], which is not of a tile unless that shares a pattern.
void masks_of_row(const SparseMatrix& m, int64_t n, uint8_t* masks);

enum Scales { kPerUnit = 1, kPerHalf = 2, kPerEighth = 8 };  // factors of a unit

// One or a few tokens, activations rounded to 8 bits, as all rows read them.
struct SparseInput {
  int64_t tokens = 0;
  Scales scales = kPerUnit;
  const int8_t* q = nullptr;       // [tokens, padded]
  const float* factors = nullptr;  // scale_x [tokens, units * scales]
};

// Of matrices in tiles.
struct SparseKernels {
  const SparseInput* (*prepare)(const SparseMatrix&, const float* x, int64_t tokens, Arena&);
  // Output features first .. last, `first` a multiple of 16. Called from several threads.
  void (*multiply)(const SparseMatrix&, const SparseInput&, float* y, int64_t first, int64_t last);
};

}  // namespace slmc
