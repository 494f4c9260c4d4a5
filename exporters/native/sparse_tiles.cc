// Decoding of sparse rows in tiles of 16 (exporters/formats/sparse_tiles.py), in plain C++ that compilers vectorise.
#include "sparse.h"

namespace slmc {
namespace {

constexpr int kFours = kTile * 4;  // codes of a place, or ranks of a block, of a tile

// Place `place` of a tile's words of a plane of `bits` bits, added where `shift` puts it.
void unpack_place(const uint8_t* words, int bits, int64_t place, int shift, uint8_t* out) {
  const int64_t parts = 8 / bits;
  const uint8_t* word = words + place / parts * kFours;
  const int down = static_cast<int>(place % parts) * bits, mask = (1 << bits) - 1;
  for (int i = 0; i < kFours; ++i) out[i] = static_cast<uint8_t>(out[i] | (word[i] >> down & mask) << shift);
}

// Place `place` of a tile, 128 + step.
void steps_of_place(const SparseMatrix& m, int64_t n, int64_t place, uint8_t* out) {
  const int low = low_bits(m.bits), high = high_bits(m.bits), offset = 128 - (1 << (m.bits - 1));
  std::memset(out, 0, kFours);
  unpack_place(m.codes + n * m.units * m.code_bytes(), low, place, 0, out);
  if (high) unpack_place(m.high + n * m.units * m.high_bytes(), high, place, low, out);
  // Two loops: a compiler makes vectors of the second.
  if (m.float4)
    for (int i = 0; i < kFours; ++i) out[i] = static_cast<uint8_t>(128 + kFloat4Steps[out[i]]);
  else
    for (int i = 0; i < kFours; ++i) out[i] = static_cast<uint8_t>(out[i] + offset);
}

// The ranks of one block of a tile, from the planes of its unit.
void ranks_of_block(const PatternTable& table, const uint8_t* plane, int64_t block, uint8_t* ranks) {
  const int64_t blocks = kUnitInputs / (4 * table.period);
  std::memset(ranks, 0, kFours);
  int first = 0;
  for (const int bits : {4, 2, 1}) {
    if (!(table.rank_bits & bits)) continue;
    const int64_t places = 8 / bits < blocks ? 8 / bits : blocks, rows = kTile / (8 / bits / places);
    const uint8_t* word = plane + block / places * rows * 4;
    for (int64_t from = 0; from < kTile; from += rows) {  // rows that share words with those before
      const int64_t down = (from / rows * places + block % places) * bits;
      for (int64_t i = 0; i < rows * 4; ++i)
        ranks[from * 4 + i] = static_cast<uint8_t>(ranks[from * 4 + i] | (word[i] >> down & ((1 << bits) - 1)) << first);
    }
    plane += blocks / places * rows * 4;
    first += bits;
  }
}

// The same where all rows have the ranks of the unit that `fields` begins with.
void shared_ranks(const PatternTable& table, const uint8_t* fields, int64_t block, uint8_t* ranks) {
  uint8_t of_unit[kUnitInputs / 4];
  decode_ranks(table.rank_bits, fields, kUnitInputs / table.period, of_unit);
  for (int row = 0; row < kTile; ++row) std::memcpy(ranks + row * 4, of_unit + block * 4, 4);
}

void decode_placed_tile(const SparseMatrix& m, int64_t n, uint8_t* rows) {
  const PatternTable& table = *m.table;
  const int64_t period = table.period, kept = m.kept * period / kUnitInputs, blocks = kUnitInputs / (4 * period);
  const bool shared = m.pattern_rows > 1;
  const int64_t unit_bytes = (shared ? 1 : kTile) * table.unit_bytes();
  const uint8_t* patterns = m.patterns + n / kTile * m.units * unit_bytes;
  uint8_t ranks[kFours], steps[kFours];
  for (int64_t block = 0; block < m.units * blocks; ++block) {
    const uint8_t* unit = patterns + block / blocks * unit_bytes;
    if (shared) shared_ranks(table, unit, block % blocks, ranks);
    else ranks_of_block(table, unit, block % blocks, ranks);
    for (int64_t place = 0; place < kept; ++place) {
      steps_of_place(m, n, block * kept + place, steps);
      const uint8_t* two = table.places[place / 2];
      const int down = static_cast<int>(place % 2) * 4;
      for (int row = 0; row < kTile; ++row)
        for (int j = 0; j < 4; ++j)
          rows[row * m.padded() + (block * 4 + j) * period + (two[ranks[row * 4 + j]] >> down & 15)] = steps[row * 4 + j];
    }
  }
}

void decode_word_tile(const SparseMatrix& m, int64_t n, const uint8_t* masks, uint8_t* rows) {
  uint8_t steps[kFours];
  for (int64_t half = 0, place = 0; half < 2 * m.units; ++half) {
    uint64_t mask;
    std::memcpy(&mask, masks + 8 * half, sizeof mask);
    for (int64_t i = 0; i < m.kept / 2; i += 4, ++place) {
      steps_of_place(m, n, place, steps);
      for (int j = 0; j < 4 && mask; ++j, mask &= mask - 1) {
        uint8_t* input = rows + 64 * half + __builtin_ctzll(mask);
        for (int row = 0; row < kTile; ++row) input[row * m.padded()] = steps[row * 4 + j];
      }
    }
  }
}

}  // namespace

void decode_sparse_tile(const SparseMatrix& m, int64_t n, const uint8_t* masks, uint8_t* rows) {
  std::memset(rows, 128, kTile * m.padded());
  if (m.words) return decode_word_tile(m, n, masks, rows);
  decode_placed_tile(m, n, rows);
}

}  // namespace slmc
