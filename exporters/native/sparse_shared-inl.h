// One token times an N:M matrix in tiles of 16 rows that share a pattern, for any vector type V: the kept activations
// are gathered once for a tile, and then the codes are those of a dense tile with fewer inputs (tiles-inl.h).
#pragma once
#include "sparse_tiles-inl.h"

namespace slmc {
namespace {

// V with the decoder of patterns that any machine has.
template <typename V>
struct WithPlainPatterns : V {
  static void decode_patterns(const PatternTable& table, const uint8_t* fields, int64_t units, uint8_t* masks) {
    slmc::decode_patterns(table, fields, units, masks);
  }
};

// The kept codes as a matrix of their own.
inline QMatrix kept_codes(const SparseMatrix& m) {
  QMatrix dense;
  dense.codes = m.codes;
  dense.high = m.high;
  dense.scales = m.scales;
  dense.N = m.N;
  dense.K = m.units * m.kept;
  dense.groups = m.groups;
  dense.group = m.group * m.kept / kUnitInputs;
  dense.tiled = m.tiled;
  dense.bits = m.bits;
  return dense;
}

// The activations that a tile's pattern keeps, gathered segment by segment before they are multiplied, so that the
// processor does both at once.
template <typename V>
struct Gathered {
  uint8_t* masks = nullptr;
  int8_t* q = nullptr;       // [tokens, kept inputs]
  int32_t* start = nullptr;  // [tokens, segments]

  void take(const SparseMatrix& m, const SparseInput& in, Arena& arena) {
    masks = arena.take<uint8_t>(m.units * kMaskBytes + 64);
    q = arena.take<int8_t>(in.tokens * m.units * m.kept + kGatherRoom);
    start = arena.take<int32_t>(in.tokens * m.units * in.scales);
  }

  // The pattern of the tile that begins with row n.
  void begin(const SparseMatrix& m, int64_t n) {
    const int64_t bytes = m.units * m.table->unit_bytes();
    const uint8_t* pattern = m.patterns + n / m.pattern_rows * bytes;
    fetch_next<V>(pattern, bytes);
    fetch_next<V>(m.scales + n * m.groups, 2 * kTile * m.groups);
    V::decode_patterns(*m.table, pattern, m.units, masks);
  }

  SLMC_INLINE void make(const SparseMatrix& m, const SparseInput& in, int64_t token, int64_t segment, int32_t centre) {
    const int64_t halves = 2 / in.scales, first = segment * halves;  // of 64 inputs, which keep a fixed number
    int8_t* out = q + token * m.units * m.kept + first * m.kept / 2;
    typename V::I sum = V::set(int32_t{0});
    for (int64_t i = 0; i < halves; ++i)
      sum = V::gather(in.q + token * m.padded() + 64 * (first + i), masks + 8 * (first + i), m.kept / 2,
                      out + i * m.kept / 2, sum);
    start[token * m.units * in.scales + segment] = -centre * V::sum(sum);
  }
};

template <typename V, int bits>
void shared_patterns(const SparseMatrix& m, const SparseInput& in, float* y, int64_t first, int64_t last) {
  constexpr int most = kTilesAtOnce<V>;
  static thread_local Arena arena;
  arena.reset();
  const QMatrix dense = kept_codes(m);
  const int32_t centre = V::kSignedCodes8 && bits == 8 ? 0 : dense.centre();
  Prepared common;
  common.segment_count = m.units * in.scales;
  common.scales = in.factors;
  auto* segments = arena.take<Segment>(common.segment_count);
  for (int64_t s = 0, length = m.kept / in.scales; s < common.segment_count; ++s)
    segments[s] = {static_cast<int32_t>(s * length), static_cast<int32_t>(length),
                   static_cast<int32_t>(s * length / dense.group)};
  common.segments = segments;
  Gathered<V> gathered[most];
  Prepared p[most];
  for (int t = 0; t < most; ++t) {
    gathered[t].take(m, in, arena);
    p[t] = common;
    p[t].quantised = p[t].for_high = gathered[t].q;
    p[t].start = gathered[t].start;
  }
  const auto run = [&](const TileTensors* at, const int64_t* n) {
    for (int t = 0; t < most; ++t) gathered[t].begin(m, n[t]);
    for (int64_t token = 0; token < in.tokens; ++token) {
      const auto make = [&](int64_t s) SLMC_LAMBDA {
        for (int t = 0; t < most && s < common.segment_count; ++t) gathered[t].make(m, in, token, s, centre);
      };
      make(0);
      multiply_tiles<V, bits, true, most, true>(dense, p, token, at, make);
    }
  };
  const int64_t end = last < m.tiled ? last : m.tiled;
  TileTensors at[most];
  int64_t n[most];
  over_tiles<V>(end > first ? (end - first) / kTile : 0, [&](const int64_t* numbers) SLMC_LAMBDA {
    for (int t = 0; t < most; ++t) at[t] = tile_at(dense, n[t] = first + numbers[t] * kTile, y);
    run(at, n);
  });
  if (last <= m.tiled) return;
  auto* memory = reinterpret_cast<uint8_t*>(thread_floats(tile_bytes(dense) / 4));
  std::fill(at, at + most, tile_of_rows<V>(dense, m.tiled, y, memory));
  std::fill(n, n + most, m.tiled);
  run(at, n);
}

template <typename V>
void multiply_sparse(const SparseMatrix& m, const SparseInput& in, float* y, int64_t first, int64_t last) {
  if (m.short_sums) return patterns_of<V, 4, true>(m, in, y, first, last);
  if (!m.words)
    return m.bits == 8 ? patterns_of<V, 8, false>(m, in, y, first, last) : patterns_of<V, 4, false>(m, in, y, first, last);
  switch (m.bits) {
    case 2: return shared_patterns<V, 2>(m, in, y, first, last);
    case 3: return shared_patterns<V, 3>(m, in, y, first, last);
    case 4: return shared_patterns<V, 4>(m, in, y, first, last);
    case 5: return shared_patterns<V, 5>(m, in, y, first, last);
    case 6: return shared_patterns<V, 6>(m, in, y, first, last);
    default: return shared_patterns<V, 8>(m, in, y, first, last);
  }
}

template <typename V>
constexpr SparseKernels sparse_kernels_of() {
  return {prepare_sparse<V>, multiply_sparse<V>};
}

}  // namespace
}  // namespace slmc
