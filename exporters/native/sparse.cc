// Decoding of sparse rows in plain C++: patterns to masks, masks and codes to bytes.
#include "quads.h"
#include "sparse.h"

namespace slmc {
namespace {

constexpr int kMostRankBits = 11;

// `bits` codes of one unit's plane into bytes, added where `shift` puts them.
void unpack_unit(const uint8_t* plane, int bits, int64_t bytes, int shift, uint8_t* out) {
  const int mask = (1 << bits) - 1;
  for (int j = 0; j < 8 / bits; ++j)
    for (int64_t i = 0; i < bytes; ++i) {
      const int code = ((plane[i] >> (j * bits)) & mask) << shift;
      out[j * bytes + i] = static_cast<uint8_t>(shift ? out[j * bytes + i] | code : code);
    }
}

// The codes of unit u of row n, behind the tiles, from a plane of `bits` bits in words.
void unpack_words(const SparseMatrix& m, const uint8_t* plane, int bits, int64_t n, int64_t u, int shift, uint8_t* out) {
  const int64_t parts = 8 / bits, row_words = m.units * m.kept / (4 * parts);
  for (int64_t i = 0; i < m.kept; ++i) {
    const int64_t place = (u * m.kept + i) / 4;
    const uint8_t byte = plane[(n * row_words + place / parts) * 4 + i % 4];
    const int code = (byte >> (place % parts * bits) & ((1 << bits) - 1)) << shift;
    out[i] = static_cast<uint8_t>(shift ? out[i] | code : code);
  }
}

// Unit u of row n, which is not of a tile, of a plane.
const uint8_t* unit_of(const SparseMatrix& m, const uint8_t* plane, int64_t n, int64_t u, int64_t unit_bytes) {
  return plane + (m.quads ? unit_in_quads(m, n, u) : n * m.units + u) * unit_bytes;
}

}  // namespace

PatternTable::PatternTable(int kept, int period) : width(period < 8 ? 8 : period), period(period) {
  std::vector<uint16_t> ranked;
  for (int mask = 0; mask < 1 << period; ++mask)
    if (__builtin_popcount(static_cast<unsigned>(mask)) == kept) ranked.push_back(static_cast<uint16_t>(mask));
  while (size_t{1} << rank_bits < ranked.size()) ++rank_bits;
  if (rank_bits > kMostRankBits) {
    field_bits = width;
    return;
  }
  ranked.resize(size_t{1} << rank_bits, ranked[0]);
  field_bits = rank_bits * width / period;
  if (width == period) masks = ranked;
  if (width > period)
    for (const uint16_t second : ranked)
      for (const uint16_t first : ranked) masks.push_back(static_cast<uint16_t>(first | second << period));
  for (int i = 0; i < 64; ++i) {
    spread[i] = static_cast<uint8_t>((i / 8 * field_bits + i % 8) % 64);
    offsets[i] = static_cast<uint8_t>(i % 8 * field_bits);
  }
  for (int i = 0; i < 128; ++i) found[i] = static_cast<uint8_t>(masks[i % masks.size()]);
  for (int rank = 0; rank < 128 && period <= 8; ++rank) {
    int before = 0;
    for (int input = 0; input < period; ++input)
      if (ranked[rank % ranked.size()] >> input & 1) {
        places[before / 2][rank] |= static_cast<uint8_t>(input << before % 2 * 4);
        ++before;
      }
  }
}

void decode_patterns(const PatternTable& table, const uint8_t* fields, int64_t count, uint8_t* masks) {
  if (table.masks.empty()) {
    std::memcpy(masks, fields, count * kMaskBytes);
    return;
  }
  const int bits = table.field_bits, bytes = table.width / 8;
  const uint32_t mask = (1u << bits) - 1;
  const int64_t eights = count * kMaskBytes / (8 * bytes);  // eight fields are `bits` bytes
  if (table.width == 8) {
    for (int64_t e = 0; e < eights; ++e) {
      uint64_t packed = 0;
      std::memcpy(&packed, fields + e * bits, bits);
      for (int f = 0; f < 8; ++f, packed >>= bits) masks[e * 8 + f] = table.found[packed & mask];
    }
    return;
  }
  for (int64_t e = 0; e < eights; ++e) {
    uint8_t copy[16] = {};
    std::memcpy(copy, fields + e * bits, bits);
    for (int f = 0; f < 8; ++f) {
      uint32_t word;
      std::memcpy(&word, copy + f * bits / 8, sizeof word);
      const uint16_t found = table.masks[(word >> (f * bits % 8)) & mask];
      std::memcpy(masks + (e * 8 + f) * bytes, &found, bytes);  // little endian, as every machine that this runs on
    }
  }
}

void masks_of_row(const SparseMatrix& m, int64_t n, uint8_t* masks) {
  const int64_t bytes = m.table->unit_bytes();
  if (m.pattern_rows > 1)
    return decode_patterns(*m.table, m.patterns + n / m.pattern_rows * m.units * bytes, m.units, masks);
  for (int64_t u = 0; u < m.units; ++u)
    decode_patterns(*m.table, unit_of(m, m.patterns, n, u, bytes), 1, masks + u * kMaskBytes);
}

void decode_sparse_row(const SparseMatrix& m, int64_t n, const uint8_t* masks, uint8_t* row) {
  const int low = low_bits(m.bits), high = high_bits(m.bits);
  uint8_t steps[256];  // 128 + step of every code
  for (int i = 0; i < 1 << m.bits; ++i)
    steps[i] = static_cast<uint8_t>(128 + (m.float4 ? kFloat4Steps[i] : i - (1 << (m.bits - 1))));
  uint8_t unit[kUnitInputs];
  for (int64_t u = 0; u < m.units; ++u, row += kUnitInputs) {
    if (m.words) {
      unpack_words(m, m.codes, low, n, u, 0, unit);
      if (high) unpack_words(m, m.high, high, n, u, low, unit);
    } else {
      unpack_unit(unit_of(m, m.codes, n, u, m.code_bytes()), low, m.code_bytes(), 0, unit);
      if (high) unpack_unit(unit_of(m, m.high, n, u, m.high_bytes()), high, m.high_bytes(), low, unit);
    }
    for (int64_t i = 0; i < m.kept; ++i) unit[i] = steps[unit[i]];
    if (!masks) {
      std::memcpy(row, unit, kUnitInputs);
      continue;
    }
    std::memset(row, 128, kUnitInputs);
    const uint8_t* next = unit;
    for (int half = 0; half < 2; ++half) {
      uint64_t mask;
      std::memcpy(&mask, masks + u * kMaskBytes + 8 * half, sizeof mask);
      for (; mask && next < unit + m.kept; mask &= mask - 1) row[64 * half + __builtin_ctzll(mask)] = *next++;
    }
  }
}

}  // namespace slmc
