// One token times an N:M matrix in tiles of 16 rows (exporters/formats/sparse_tiles.py) whose codes lie by place, for any
// vector type V: a lane belongs to a row, and picks its four activations of a place by a shuffle of bytes.
//
//   y[n] = sum over segments of  scale_w[n, g] * scale_x[s] * sum over places (code - centre) * q[input of the place]
//
// A block is four periods of inputs. A table turns their ranks, one to a byte, into two places at once. Where products
// want unsigned codes, the centre is summed beside them, for every row picks other activations. Short sums end every 16
// inputs: of blocks of 32 the two periods in the lower bytes are summed apart from those in the upper ones.
// Included by one file per instruction set, after its V.
#pragma once
#include "activations-inl.h"
#include "sparse.h"
#include "sparse_ranks-inl.h"
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
  const int8_t* ranks = nullptr;   // of all rows, block by block, where they share a pattern
  const uint8_t* steps = nullptr;  // of the codes, for short sums
};

// The bytes behind these: what comes in short runs the processor alone fetches too late.
template <typename V>
SLMC_INLINE void fetch_next(const void* bytes, int64_t count) {
  for (int64_t i = 0; i < count; i += 64) V::prefetch(static_cast<const uint8_t*>(bytes) + count + i);
}

// The sums of one segment, tile by tile and vector by vector of its rows.
template <typename V, int bits, int kept, int period, int tiles, bool brief>
class SparseSums {
  using I = typename V::I;
  using Patterns = Ranks<V, kept, period>;
  static constexpr int wide = brief ? 8 : bits;  // bits of codes that are multiplied
  static constexpr int vectors = kTileVectors<V>, parts = 8 / bits, places = parts < V::kSlots ? parts : V::kSlots;
  static constexpr int slots = !brief ? places : period == 8 ? 2 : 1;
  static constexpr bool centres = wide == 8 ? !V::kSignedCodes8 : !V::kSignedDots;
  static constexpr int centre = 1 << (wide - 1);
  static constexpr int64_t words = Patterns::blocks * kept / parts, unit_bytes = words * kTile * 4;

 public:
  static constexpr int halves = brief ? slots : 1;  // segments that a block of inputs has

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
      I ranks;
      if (brief && at->ranks) ranks = V::broadcast(at[t.value].ranks + (u * Patterns::blocks + block) * 4);
      else ranks = Patterns::template of<block, r.value>(patterns);
      unrolled<(kept + 1) / 2>([&](auto pair) SLMC_LAMBDA {
        const I both = V::template look_up<Patterns::bits>(table.places[pair.value], ranks);
        unrolled<(kept - 2 * pair.value < 2 ? 1 : 2)>([&](auto second) SLMC_LAMBDA {
          const I picked = x.pick(V::template right<4 * second.value>(both));
          constexpr int place = block * kept + 2 * pair.value + second.value;
          if constexpr (brief) add_steps<place, t.value, r.value>(codes, picked, at->steps);
          else add_place<place, t.value, r.value>(codes, picked);
        });
      });
    });
  }

  // Adds the sums, of one half of a block where it has two, times the segment's scales, to the totals.
  template <int half = 0>
  SLMC_INLINE void end(const SparseTile* at, int64_t group, typename V::F scale, typename V::F (*total)[vectors]) const {
    over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
      I all = sum_[t.value][r.value][half], less = beside_[t.value][r.value][half];
      unrolled<brief ? 0 : slots - 1>([&](auto i) SLMC_LAMBDA {
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
  SLMC_INLINE void add_steps(const uint8_t* codes, I picked, const uint8_t* steps) {
    const uint8_t* word = codes + place / parts * kTile * 4;
    if constexpr (place % parts == 0 && r * V::kLanes * 4 % 64 == 0) V::prefetch(word + kSparseTileAhead);
    const I code = V::template look_up<bits>(steps, V::template right<bits * (place % parts)>(V::load(word)));
    unrolled<slots>([&](auto half) SLMC_LAMBDA {
      I x = picked;
      if constexpr (slots == 2) x = V::and_(x, V::set(static_cast<int32_t>(half.value ? 0xffff0000u : 0xffffu)));
      I &sum = sum_[t][r][half.value], &beside = beside_[t][r][half.value];
      sum = V::template dot<8>(sum, code, x);
      if constexpr (centres) beside = V::template dot<8>(beside, V::set(repeated(centre)), x);
    });
  }

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

template <typename V, int bits, int kept, int period, int tiles, bool brief>
void multiply_sparse_tiles(const SparseMatrix& m, const SparseInput& in, int64_t token, const SparseTile* at) {
  constexpr int blocks = Ranks<V, kept, period>::blocks;
  typename V::F total[tiles][kTileVectors<V>];
  over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA { total[t.value][r.value] = V::zero(); });
  using Sums = SparseSums<V, bits, kept, period, tiles, brief>;
  Sums sums;
  sums.begin();
  const int8_t* q = in.q + token * m.padded();
  const float* scale_x = in.factors + token * m.units * in.scales;
  const int64_t units_of_group = m.group / kUnitInputs, last = m.groups - 1;
  const int64_t least = m.group / (kUnitInputs / kPerEighth);  // short sums of a group
  int64_t group = 0, left = least;
  for (int64_t u = 0; u < m.units; ++u, q += kUnitInputs) {
    unrolled<2>([&](auto half) SLMC_LAMBDA {
      unrolled<blocks / 2>([&](auto b) SLMC_LAMBDA {
        sums.template add<half.value * blocks / 2 + b.value>(*m.table, at, u, q);
        if constexpr (brief) {
          unrolled<Sums::halves>([&](auto of_block) SLMC_LAMBDA {
            sums.template end<of_block.value>(at, group, V::set(*scale_x++), total);
            if (--left == 0 && group < last) ++group, left = least;
          });
          sums.begin();
        }
      });
      if (brief || (half.value == 0 && in.scales == kPerUnit)) return;
      const int64_t s = in.scales == kPerUnit ? u : 2 * u + half.value;
      const int64_t of_half = in.scales == kPerUnit ? u / units_of_group : s < last ? s : last;
      sums.end(at, of_half, V::set(scale_x[s]), total);
      sums.begin();
    });
  }
  over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
    V::store(at[t.value].y + token * m.N + r.value * V::kLanes, total[t.value][r.value]);
  });
}

// Row n, behind the last tile, decoded to a byte per input.
inline void multiply_last_row(const SparseMatrix& m, const SparseInput& in, int64_t n, uint8_t* row, float* y) {
  masks_of_row(m, n, row + m.padded());
  decode_sparse_row(m, n, row + m.padded(), row);
  const int64_t segment = kUnitInputs / in.scales;
  for (int64_t t = 0; t < in.tokens; ++t) {
    float total = 0;
    for (int64_t s = 0; s < m.units * in.scales; ++s) {
      int32_t sum = 0;
      for (int64_t k = s * segment; k < (s + 1) * segment; ++k) sum += (row[k] - 128) * in.q[t * m.padded() + k];
      total += static_cast<float>(sum) * in.factors[t * m.units * in.scales + s] *
               half_to_float(m.scales[n * m.groups + (s * segment < m.K ? s * segment / m.group : 0)]);
    }
    y[t * m.N + n] = total;
  }
}

constexpr int8_t kNibbleSteps[16] = {-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};

// A matrix of four bits as one of a table.
inline QMatrix with_steps(const SparseMatrix& m) {
  QMatrix codes;
  codes.bits = 4;
  codes.steps = m.float4 ? kFloat4Steps : kNibbleSteps;
  return codes;
}

// Output features first .. last of all tokens; `first` is a multiple of kTile.
template <typename V, int bits, int kept, int period, bool brief>
void patterns_by_place(const SparseMatrix& m, const SparseInput& in, float* y, int64_t first, int64_t last) {
  constexpr int at_once = kTilesAtOnce<V>;
  constexpr int64_t row_codes = kUnitInputs * kept / period * bits / 8;
  constexpr int64_t row_patterns = Ranks<V, kept, period>::bytes / kTile;
  static thread_local Arena arena;
  arena.reset();
  auto* row = arena.take<uint8_t>(m.padded() + m.units * kMaskBytes);
  const int64_t ranks = brief && m.pattern_rows > 1 ? m.padded() / period : 0;  // that all rows of a tile share
  auto* shared = arena.take<uint8_t>(at_once * ranks);
  const std::conditional_t<brief, Steps, NoSteps> steps(with_steps(m), !V::kSignedCodes8);
  const auto tile = [&](int64_t n, int t) {
    SparseTile at{m.codes + n * m.units * row_codes, m.patterns + n * m.units * row_patterns, m.scales + n * m.groups,
                  y + n};
    if constexpr (brief) at.steps = steps.bytes;
    if (ranks == 0) return at;
    at.patterns = m.patterns + n / kTile * m.units * m.table->unit_bytes();
    decode_ranks(rank_bits_of(kept, period), at.patterns, ranks, shared + t * ranks);
    at.ranks = reinterpret_cast<const int8_t*>(shared + t * ranks);
    return at;
  };
  const int64_t end = last < m.tiled ? last : m.tiled;
  over_tiles<V>(end > first ? (end - first) / kTile : 0, [&](const int64_t* numbers) SLMC_LAMBDA {
    SparseTile at[at_once];
    for (int t = 0; t < at_once; ++t) at[t] = tile(first + numbers[t] * kTile, t);
    for (int64_t t = 0; t < in.tokens; ++t) multiply_sparse_tiles<V, bits, kept, period, at_once, brief>(m, in, t, at);
  });
  for (int64_t n = end > first ? end : first; n < last; ++n) multiply_last_row(m, in, n, row, y);
}

template <typename V, int bits, bool brief>
void patterns_of(const SparseMatrix& m, const SparseInput& in, float* y, int64_t first, int64_t last) {
  const auto run = [&](auto kept, auto period) {
    patterns_by_place<V, bits, kept.value, period.value, brief>(m, in, y, first, last);
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

// x rounded to 8 bits, a scale per 128 inputs, or per smaller group.
template <typename V>
const SparseInput* prepare_sparse(const SparseMatrix& m, const float* x, int64_t tokens, Arena& arena) {
  const Scales scales = m.short_sums ? kPerEighth : m.group < kUnitInputs ? kPerHalf : kPerUnit;
  const int64_t segments = m.units * scales, length = m.group < kActivationGroup ? m.group : kActivationGroup;
  const int64_t each = length * scales / kUnitInputs;  // segments of a scale
  auto* buffer = arena.take<float>(m.padded());
  auto* q = arena.take<int8_t>(tokens * m.padded() + kGatherRoom);
  auto* factors = arena.take<float>(tokens * segments);
  for (int64_t t = 0; t < tokens; ++t) {
    const float* padded = padded_row(x + t * m.K, m.K, m.padded(), buffer);
    for (int64_t k = 0; k < m.padded(); k += length) {
      int32_t sum;
      const float scale = quantise<V>(padded + k, length, q + t * m.padded() + k, &sum);
      std::fill_n(factors + t * segments + k / length * each, each, scale);
    }
  }
  return new (arena.take<SparseInput>(1)) SparseInput{tokens, scales, q, factors};
}

}  // namespace
}  // namespace slmc
