// One token times an N:M matrix in tiles of 16 rows (exporters/formats/sparse_tiles.py), each row with its own pattern,
// for any vector type V: a lane belongs to a row, and picks its four activations of a place by a shuffle of bytes.
//
//   y[n] = sum over segments of  scale_w[n, g] * scale_x[s] * sum over places (code - centre) * q[input of the place]
//
// A block is four periods of inputs. A table turns their ranks, one to a byte, into two places at once. Where products
// want unsigned codes, the centre is summed beside them, for every row picks other activations.
// Included by one file per instruction set, after its V.
#pragma once
#include "activations-inl.h"
#include "sparse.h"
#include "tiles-inl.h"

namespace slmc {
namespace {

constexpr int64_t kSparseTileAhead = 1024;  // bytes of codes between a prefetch and its use
constexpr int64_t kPatternsAhead = 512;

constexpr int64_t kGatherRoom = 128;  // bytes behind activations that V::gather may read, or write

struct SparseTile {
  const uint8_t* codes;
  const uint8_t* patterns;
  const uint16_t* scales;  // [group][row]
  float* y;
};

constexpr int rank_bits_of(int kept, int period) {
  int patterns = 1, bits = 0;
  for (int i = 0; i < kept; ++i) patterns = patterns * (period - i) / (i + 1);
  while (1 << bits < patterns) ++bits;
  return bits;
}

// The bytes behind these: what comes in short runs the processor alone fetches too late.
template <typename V>
SLMC_INLINE void fetch_next(const void* bytes, int64_t count) {
  for (int64_t i = 0; i < count; i += 64) V::prefetch(static_cast<const uint8_t*>(bytes) + count + i);
}

template <typename V, int n>
SLMC_INLINE typename V::I moved_right(typename V::I v) {
  if constexpr (n >= 0) return V::template right<n>(v);
  else return V::template left<-n>(v);
}

constexpr int32_t repeated(int byte) { return static_cast<int32_t>(0x01010101u * static_cast<unsigned>(byte)); }

// Where the planes of a unit's ranks lie, and how a block's ranks come out of them.
template <typename V, int kept, int period>
struct Ranks {
  static constexpr int bits = rank_bits_of(kept, period), blocks = kUnitInputs / (4 * period);
  static constexpr bool has4 = bits >= 4, has2 = bits % 4 >= 2, has1 = bits % 2 == 1;
  static constexpr int first2 = has4 ? 4 : 0, first1 = bits - 1;
  static constexpr int at2 = has4 ? blocks / 2 * kTile * 4 : 0, at1 = at2 + (has2 ? blocks / 4 * kTile * 4 : 0);
  static constexpr int bytes = 4 * period == 32 ? kTile * 2 * bits : kTile * 4 * bits;  // of a unit
  using I = typename V::I;

  // Vector r of the tile's rows; bits above the ranks' are others'.
  template <int block, int r>
  static SLMC_INLINE I of(const uint8_t* unit) {
    constexpr int from = r * V::kLanes * 4;
    I ranks = V::set(int32_t{0});
    if constexpr (has4)
      ranks = V::template right<block % 2 * 4>(V::load(unit + block / 2 * kTile * 4 + from));
    if constexpr (has2) {
      const I two = moved_right<V, block % 4 * 2 - first2>(V::load(unit + at2 + block / 4 * kTile * 4 + from));
      ranks = has4 ? V::choose(V::set(repeated((1 << first2) - 1)), ranks, two) : two;
    }
    if constexpr (has1) ranks = V::choose(V::set(repeated((1 << first1) - 1)), ranks, last_bit<block, r>(unit + at1));
    return ranks;
  }

 private:
  template <int block, int r>
  static SLMC_INLINE I last_bit(const uint8_t* plane) {
    constexpr int right = block - first1;
    if constexpr (blocks == 8) return moved_right<V, right>(V::load(plane + r * V::kLanes * 4));
    else if constexpr (V::kLanes == kTile) return V::template paired<right>(plane);
    else return moved_right<V, right + r * V::kLanes / 8 * 4>(V::load(plane + r * V::kLanes % 8 * 4));
  }
};

// The sums of one segment, tile by tile and vector by vector of its rows.
template <typename V, int bits, int kept, int period, int tiles>
class SparseSums {
  using I = typename V::I;
  using Patterns = Ranks<V, kept, period>;
  static constexpr int vectors = kTileVectors<V>, parts = 8 / bits, slots = parts < V::kSlots ? parts : V::kSlots;
  static constexpr bool centres = !V::kSignedDots && !(bits == 8 && V::kSignedCodes8);
  static constexpr int centre = 1 << (bits - 1);
  static constexpr int64_t words = Patterns::blocks * kept / parts, unit_bytes = words * kTile * 4;

 public:
  SLMC_INLINE void begin() {
    over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
      unrolled<slots>([&](auto s) SLMC_LAMBDA {
        sum_[t.value][r.value][s.value] = beside_[t.value][r.value][s.value] = V::set(int32_t{0});
      });
    });
  }

  // Block `block` of unit u, whose activations begin at q.
  template <int block>
  SLMC_INLINE void add(const PatternTable& table, const SparseTile* at, int64_t u, const int8_t* q) {
    const typename V::template Block<period> x(q + block * 4 * period);
    over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
      const uint8_t* patterns = at[t.value].patterns + u * Patterns::bytes;
      const uint8_t* codes = at[t.value].codes + u * unit_bytes + r.value * V::kLanes * 4;
      if constexpr (r.value * V::kLanes * 4 % 64 == 0)
        for (int ahead = block * Patterns::bytes / Patterns::blocks / 64 * 64;
             ahead < (block + 1) * Patterns::bytes / Patterns::blocks / 64 * 64; ahead += 64)
          V::prefetch(patterns + kPatternsAhead + ahead);
      const I ranks = Patterns::template of<block, r.value>(patterns);
      unrolled<(kept + 1) / 2>([&](auto pair) SLMC_LAMBDA {
        const I both = V::template look_up<Patterns::bits>(table.places[pair.value], ranks);
        unrolled<(kept - 2 * pair.value < 2 ? 1 : 2)>([&](auto second) SLMC_LAMBDA {
          const I picked = x.pick(V::template right<4 * second.value>(both));
          add_place<block * kept + 2 * pair.value + second.value, t.value, r.value>(codes, picked);
        });
      });
    });
  }

  // Adds the sums, times the segment's scales, to the totals.
  SLMC_INLINE void end(const SparseTile* at, int64_t group, typename V::F scale, typename V::F (*total)[vectors]) const {
    over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
      I all = sum_[t.value][r.value][0], less = beside_[t.value][r.value][0];
      unrolled<slots - 1>([&](auto i) SLMC_LAMBDA {
        constexpr int slot = i.value + 1;
        all = V::add(all, V::template right_signed<bits * slot>(sum_[t.value][r.value][slot]));
        less = V::add(less, beside_[t.value][r.value][slot]);
      });
      if constexpr (centres) all = V::sub(all, less);
      const typename V::F scaled = V::mul(V::to_float(all), scale);
      typename V::F& to = total[t.value][r.value];
      to = V::fma(scaled, V::load_halves(at[t.value].scales + group * kTile + r.value * V::kLanes), to);
    });
  }

 private:
  template <int place, int t, int r>
  SLMC_INLINE void add_place(const uint8_t* codes, I picked) {
    constexpr int slot = place % parts % slots, down = bits * (place % parts - slot);
    const uint8_t* word = codes + place / parts * kTile * 4;
    if constexpr (place % parts == 0 && r * V::kLanes * 4 % 64 == 0) V::prefetch(word + kSparseTileAhead);
    I code = V::load(word);
    if constexpr (bits < 8)
      code = V::and_(V::template right<down>(code), V::set(repeated(((1 << bits) - 1) << (bits * slot))));
    else if constexpr (V::kSignedCodes8) code = V::flip_signs(code);
    if constexpr (bits < 8 && V::kSignedDots) code = V::less(code, V::set(repeated(centre)));
    sum_[t][r][slot] = V::template dot<bits>(sum_[t][r][slot], code, picked);
    if constexpr (centres)
      beside_[t][r][slot] = V::template dot<bits>(beside_[t][r][slot], V::set(repeated(centre)), picked);
  }

  I sum_[tiles][vectors][slots], beside_[tiles][vectors][slots];
};

template <typename V, int bits, int kept, int period, int tiles>
void multiply_sparse_tiles(const SparseMatrix& m, const SparseInput& in, int64_t token, const SparseTile* at) {
  constexpr int half_blocks = Ranks<V, kept, period>::blocks / 2;
  typename V::F total[tiles][kTileVectors<V>];
  over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA { total[t.value][r.value] = V::zero(); });
  SparseSums<V, bits, kept, period, tiles> sums;
  sums.begin();
  const int8_t* q = in.q + token * m.padded();
  const float* scale_x = in.factors + token * m.units * in.scales;
  const int64_t units_of_group = m.group / kUnitInputs;
  for (int64_t u = 0; u < m.units; ++u, q += kUnitInputs) {
    unrolled<2>([&](auto half) SLMC_LAMBDA {
      unrolled<half_blocks>([&](auto b) SLMC_LAMBDA {
        sums.template add<half.value * half_blocks + b.value>(*m.table, at, u, q);
      });
      if (half.value == 0 && in.scales == kPerUnit) return;
      const int64_t s = in.scales == kPerUnit ? u : 2 * u + half.value;
      const int64_t group = in.scales == kPerUnit ? u / units_of_group : s < m.groups ? s : m.groups - 1;
      sums.end(at, group, V::set(scale_x[s]), total);
      sums.begin();
    });
  }
  over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
    V::store(at[t.value].y + token * m.N + r.value * V::kLanes, total[t.value][r.value]);
  });
}

// Row n, behind the last tile, decoded to a byte per input.
template <typename V>
void multiply_last_row(const SparseMatrix& m, const SparseInput& in, int64_t n, uint8_t* row, float* y) {
  masks_of_row(m, n, row + m.padded());
  decode_sparse_row(m, n, row + m.padded(), row);
  const int64_t segment = kUnitInputs / in.scales;
  for (int64_t t = 0; t < in.tokens; ++t) {
    float total = 0;
    for (int64_t s = 0; s < m.units * in.scales; ++s) {
      typename V::I sum = V::set(int32_t{0}), beside = sum;
      for (int64_t k = s * segment; k < (s + 1) * segment; k += V::kLanes * 4) {
        const typename V::I q = V::load(in.q + t * m.padded() + k);
        typename V::I codes = V::load(row + k);
        if constexpr (V::kSignedCodes8) codes = V::flip_signs(codes);
        else beside = V::template dot<8>(beside, V::ones(), q);
        sum = V::template dot<8>(sum, codes, q);
      }
      const auto steps = static_cast<float>(V::sum(sum) - 128 * V::sum(beside));
      total += steps * in.factors[t * m.units * in.scales + s] *
               half_to_float(m.scales[n * m.groups + (s * segment < m.K ? s * segment / m.group : 0)]);
    }
    y[t * m.N + n] = total;
  }
}

// Output features first .. last of all tokens; `first` is a multiple of kTile.
template <typename V, int bits, int kept, int period>
void own_patterns(const SparseMatrix& m, const SparseInput& in, float* y, int64_t first, int64_t last) {
  constexpr int at_once = kTilesAtOnce<V>;
  constexpr int64_t row_codes = kUnitInputs * kept / period * bits / 8;
  constexpr int64_t row_patterns = Ranks<V, kept, period>::bytes / kTile;
  const auto tile = [&](int64_t n) {
    return SparseTile{m.codes + n * m.units * row_codes, m.patterns + n * m.units * row_patterns,
                      m.scales + n * m.groups, y + n};
  };
  const int64_t end = last < m.tiled ? last : m.tiled;
  over_tiles<V>(end > first ? (end - first) / kTile : 0, [&](const int64_t* numbers) SLMC_LAMBDA {
    SparseTile at[at_once];
    for (int t = 0; t < at_once; ++t) at[t] = tile(first + numbers[t] * kTile);
    for (int64_t t = 0; t < in.tokens; ++t) multiply_sparse_tiles<V, bits, kept, period, at_once>(m, in, t, at);
  });
  static thread_local Arena arena;
  arena.reset();
  auto* row = arena.take<uint8_t>(m.padded() + m.units * kMaskBytes);
  for (int64_t n = end > first ? end : first; n < last; ++n) multiply_last_row<V>(m, in, n, row, y);
}

template <typename V, int bits>
void own_patterns_of(const SparseMatrix& m, const SparseInput& in, float* y, int64_t first, int64_t last) {
  const auto run = [&](auto kept, auto period) {
    own_patterns<V, bits, kept.value, period.value>(m, in, y, first, last);
  };
  const int64_t period = m.table->period;
  const auto kept = static_cast<int>(m.kept * period / kUnitInputs);
  if (period == 4) {
    if (kept == 1) return run(Index<1>{}, Index<4>{});
    return kept == 2 ? run(Index<2>{}, Index<4>{}) : run(Index<3>{}, Index<4>{});
  }
  switch (kept) {
    case 1: return run(Index<1>{}, Index<8>{});
    case 2: return run(Index<2>{}, Index<8>{});
    case 3: return run(Index<3>{}, Index<8>{});
    case 4: return run(Index<4>{}, Index<8>{});
    case 5: return run(Index<5>{}, Index<8>{});
    case 6: return run(Index<6>{}, Index<8>{});
    default: return run(Index<7>{}, Index<8>{});
  }
}

// x rounded to 8 bits, a scale per 128 inputs, or per group of 64.
template <typename V>
const SparseInput* prepare_sparse(const SparseMatrix& m, const float* x, int64_t tokens, Arena& arena) {
  const Scales scales = m.group < kUnitInputs ? kPerHalf : kPerUnit;
  const int64_t segments = m.units * scales, length = kUnitInputs / scales;
  auto* buffer = arena.take<float>(m.padded());
  auto* q = arena.take<int8_t>(tokens * m.padded() + kGatherRoom);
  auto* factors = arena.take<float>(tokens * segments);
  for (int64_t t = 0; t < tokens; ++t) {
    const float* padded = padded_row(x + t * m.K, m.K, m.padded(), buffer);
    for (int64_t s = 0; s < segments; ++s) {
      int32_t sum;
      factors[t * segments + s] = quantise<V>(padded + s * length, length, q + t * m.padded() + s * length, &sum);
    }
  }
  return new (arena.take<SparseInput>(1)) SparseInput{tokens, scales, q, factors};
}

}  // namespace
}  // namespace slmc
