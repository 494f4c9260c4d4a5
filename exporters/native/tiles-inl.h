// One token times a matrix in tiles, for any vector type V: every lane belongs to a row, so that sums of different rows
// never meet, and one scale per segment and row serves all its codes.
//
//   integer activations   y[n] = sum over segments of  scale_w * scale_x * (sum code * q - centre * sum q)
//   float activations     y[n] = sum over segments of  scale_w * (sum (code - centre) * x)
//
// Planes are multiplied one after the other: code = low + high * 2^low_bits. Where products of unsigned bytes cannot
// overflow (V::kSlots > 1), codes are masked in their place and not shifted: a sum for each place, shifted at the end.
// Included by one file per instruction set, with its V.
#pragma once
#include <algorithm>
#include <type_traits>

#include "tile_steps-inl.h"

namespace slmc {
namespace {

// For wide vectors two tiles, from two places of the matrix: enough sums to hide what a product takes.
template <typename V>
constexpr int kTilesAtOnce = V::kLanes == kTile ? 2 : 1;

// body(block) for a number of blocks, which is known where it is an Index.
template <typename Count, typename Body>
SLMC_INLINE void over_blocks(Count blocks, const Body& body) {
  if constexpr (std::is_integral_v<Count>)
    for (int64_t block = 0; block < blocks; ++block) body(block);
  else
    unrolled<Count::value>([&](auto block) SLMC_LAMBDA { body(block.value); });
}

// Adds 2^up * (sum of code * q) over blocks of so many codes of a plane of b bits to sum[tile][vector]. `own`: every
// tile has its own q.
template <typename V, int b, int up, int tiles, bool own, int codes_of_block, typename Count>
SLMC_INLINE void add_plane(const uint8_t* const* planes, const int8_t* const* q, Count blocks,
                           typename V::I (*sum)[kTileVectors<V>]) {
  using I = typename V::I;
  constexpr int vectors = kTileVectors<V>, parts = 8 / b, slots = parts < V::kSlots ? parts : V::kSlots;
  constexpr int count = b * codes_of_block / 32;  // words of a block
  constexpr int ahead = own ? kSharedAhead : b <= 2 ? kThinAhead : kTileAhead<V>;
  I slot[tiles][vectors][slots];
  over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
    unrolled<slots>([&](auto s) SLMC_LAMBDA { slot[t.value][r.value][s.value] = V::set(int32_t{0}); });
  });
  const auto add_block = [&](int64_t block) SLMC_LAMBDA {
    typename V::Pairs pairs[tiles][vectors];
    unrolled<count>([&](auto w) SLMC_LAMBDA {
      I words[tiles][vectors];
      over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
        const int64_t from = (block * count + w.value) * kTile * 4;
        words[t.value][r.value] = V::load(planes[t.value] + from + r.value * V::kLanes * 4);
        V::keep(words[t.value][r.value]);
        if (r.value * V::kLanes * 4 % 64 == 0) V::prefetch(planes[t.value] + from + ahead);
      });
      unrolled<parts>([&](auto j) SLMC_LAMBDA {
        constexpr int place = j.value % slots, down = b * (j.value - place);
        const I mask = V::set(static_cast<int32_t>((((1u << b) - 1) << (b * place)) * 0x01010101u));
        I x[own ? tiles : 1];
        unrolled<own ? tiles : 1>([&](auto t) SLMC_LAMBDA {
          x[t.value] = V::broadcast(q[t.value] + block * codes_of_block + (w.value * parts + j.value) * 4);
        });
        over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
          I codes = words[t.value][r.value];
          if constexpr (b < 8) codes = V::and_(V::template right<down>(codes), mask);
          if constexpr (b == 8 && V::kSignedCodes8) codes = V::flip_signs(codes);
          I& total = slot[t.value][r.value][place];
          if constexpr (V::kPairs && b < 8) {
            static_assert(V::template kPairsTogether<b> >= 8, "a block fits in 16 bits");
            typename V::Pairs& held = pairs[t.value][r.value];
            const I& inputs = x[own ? t.value : 0];
            if constexpr (w.value + j.value == 0) held = V::template pairs<b>(codes, inputs);
            else held = V::template add_pairs<b>(held, codes, inputs);
          } else {
            total = V::template dot<b>(total, codes, x[own ? t.value : 0]);
          }
        });
      });
    });
    if constexpr (V::kPairs && b < 8)
      over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
        slot[t.value][r.value][0] = V::add_widened(slot[t.value][r.value][0], pairs[t.value][r.value]);
      });
  };
  over_blocks(blocks, add_block);
  over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
    I total = slot[t.value][r.value][0];
    unrolled<slots - 1>([&](auto s) SLMC_LAMBDA {
      constexpr int i = s.value + 1;
      total = V::add(total, V::template right_signed<b * i>(slot[t.value][r.value][i]));
    });
    sum[t.value][r.value] = V::add(sum[t.value][r.value], V::template left<up>(total));
  });
}

// total[tile][vector] += scale_w * (values - (zero - centre) * sum of x), of one group.
template <typename V, int tiles>
SLMC_INLINE void add_segment(const TileTensors* at, int64_t group, float centre, float sum_x,
                             typename V::F (*values)[kTileVectors<V>], typename V::F (*total)[kTileVectors<V>]) {
  over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
    const int64_t from = group * kTile + r.value * V::kLanes;
    typename V::F value = values[t.value][r.value];
    if (at[t.value].zeros) {
      const typename V::F zero = V::load_bytes_first(at[t.value].zeros + from, V::kLanes);
      value = V::fnma(V::sub(zero, V::set(centre)), V::set(sum_x), value);
    }
    const uint16_t* scales = at[t.value].scales + from;
    if (r.value == 0) V::prefetch(reinterpret_cast<const uint8_t*>(scales) + kScalesAhead);
    typename V::F& to = total[t.value][r.value];
    to = V::fma(value, V::load_halves(scales), to);
  });
}

struct NothingToMake {
  SLMC_INLINE void operator()(int64_t) const {}
};

// values[tile][vector] = scale_x * (sum code * q - centre * sum q) over segment s. `own`: `inputs` is one for each tile.
template <typename V, int bits, int tiles, bool own, bool table>
SLMC_INLINE void multiply_segment8(const QMatrix& m, const Prepared* inputs, int64_t token, int64_t s,
                                   const TileTensors* at, typename V::F (*values)[kTileVectors<V>]) {
  using L = Layout<V, bits>;
  constexpr int many = own ? tiles : 1;
  const Segment segment = inputs->segments[s];
  const int64_t i = token * inputs->segment_count + s, first = token * m.padded() + segment.first;
  const uint8_t *low[tiles], *high[tiles];
  unrolled<tiles>([&](auto t) SLMC_LAMBDA {
    low[t.value] = at[t.value].low + segment.first * L::low / 8 * kTile;
    high[t.value] = at[t.value].high + segment.first * L::high / 8 * kTile;
  });
  typename V::I sum[tiles][kTileVectors<V>];
  over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
    sum[t.value][r.value] = V::set(inputs[own ? t.value : 0].start[i]);
  });
  const int8_t *q[many], *q_high[many];
  unrolled<many>([&](auto t) SLMC_LAMBDA {
    q[t.value] = inputs[t.value].quantised + first;
    q_high[t.value] = inputs[t.value].for_high + first;
  });
  const auto add_planes = [&](auto blocks) SLMC_LAMBDA {
    add_plane<V, L::low, 0, tiles, own, 32>(low, q, blocks, sum);
    if constexpr (L::high > 0) add_plane<V, L::high, L::low, tiles, own, 32>(high, q_high, blocks, sum);
  };
  constexpr bool halves = !own && fills_words(16, bits);  // a segment may be half a block
  if (halves && segment.length == 16) {
    if constexpr (halves && table) add_steps<V, bits, tiles, 16>(*at->steps, low, high, q[0], 1, sum);
    else if constexpr (halves) add_plane<V, bits, 0, tiles, own, 16>(low, q, Index<1>{}, sum);
  } else if constexpr (table) add_steps<V, bits, tiles, 32>(*at->steps, low, high, q[0], segment.length / 32, sum);
  else if (segment.length == kActivationGroup) add_planes(Index<kActivationGroup / 32>{});
  else if (own && segment.length == 64) add_planes(Index<2>{});
  else if (own && segment.length == 32) add_planes(Index<1>{});
  else add_planes(segment.length / 32);
  const typename V::F scale_x = V::set(inputs->scales[i]);
  over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
    values[t.value][r.value] = V::mul(V::to_float(sum[t.value][r.value]), scale_x);
  });
}

// values[tile][vector] = sum (code - centre) * x over a segment, or sum step * x.
template <typename V, int bits, int tiles, bool table>
SLMC_INLINE void multiply_segment32(const QMatrix& m, const Prepared& p, int64_t token, const Segment& segment,
                                    const TileTensors* at, typename V::F (*values)[kTileVectors<V>]) {
  using L = Layout<V, bits>;
  constexpr int vectors = kTileVectors<V>, chains = tiles * vectors < 4 ? 2 : 1;  // sums that do not wait for another
  typename V::F sum[tiles][vectors][chains];
  over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
    unrolled<chains>([&](auto i) SLMC_LAMBDA { sum[t.value][r.value][i.value] = V::zero(); });
  });
  const float* x = p.padded + token * m.padded() + segment.first;
  constexpr int least = fills_words(16, bits) ? 16 : 32;
  for (int64_t k = 0; k < segment.length; k += least)
    unrolled<L::low * least / 32>([&](auto w) SLMC_LAMBDA {
      constexpr int bit = w.value * L::per_lane * L::high;  // of the block's high words
      std::conditional_t<table, StepWords<V, bits>, typename V::template Words<bits>> words[tiles][vectors];
      over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
        const auto word = [&](const uint8_t* plane, int64_t from) SLMC_LAMBDA {
          if (r.value * V::kLanes * 4 % 64 == 0) V::prefetch(plane + from * kTile * 4 + kTileAhead<V>);
          return V::load(plane + (from * kTile + r.value * V::kLanes) * 4);
        };
        const uint8_t* low = at[t.value].low + segment.first * L::low / 8 * kTile;
        const uint8_t* high = at[t.value].high + segment.first * L::high / 8 * kTile;
        typename V::I more = V::set(int32_t{0});
        if constexpr (L::high > 0) more = V::template right<bit % 32>(word(high, k / 32 * L::high + bit / 32));
        if constexpr (table) words[t.value][r.value].take(word(low, k * L::low / 32 + w.value), more, *at->steps);
        else words[t.value][r.value].take(word(low, k * L::low / 32 + w.value), more);
      });
      unrolled<L::per_lane>([&](auto c) SLMC_LAMBDA {
        const typename V::F xs = V::set(x[k + w.value * L::per_lane + c.value]);
        over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
          typename V::F& to = sum[t.value][r.value][c.value % chains];
          to = words[t.value][r.value].template multiply<c.value>(xs, to);
        });
      });
    });
  over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
    const typename V::F* of = sum[t.value][r.value];
    values[t.value][r.value] = chains == 1 ? of[0] : V::add(of[0], of[chains - 1]);
  });
}

// One token times `tiles` tiles. make(s), for s from 1 to the count of segments, comes a segment before what reads
// segment s of the inputs: bytes just written are slow to be read.
template <typename V, int bits, bool integer, int tiles, bool own = false, bool table = false,
          typename Make = NothingToMake>
void multiply_tiles(const QMatrix& m, const Prepared* inputs, int64_t token, const TileTensors* at,
                    const Make& make = {}) {
  constexpr int vectors = kTileVectors<V>;
  const Prepared& p = *inputs;
  const float centre = static_cast<float>(m.centre());
  typename V::F total[tiles][vectors];
  over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA { total[t.value][r.value] = V::zero(); });
  for (int64_t s = 0; s < p.segment_count; ++s) {
    make(s + 1);
    typename V::F values[tiles][vectors];
    if constexpr (integer) multiply_segment8<V, bits, tiles, own, table>(m, inputs, token, s, at, values);
    else multiply_segment32<V, bits, tiles, table>(m, p, token, p.segments[s], at, values);
    const float sum_x = p.sums ? p.sums[token * p.segment_count + s] : 0.0f;
    add_segment<V, tiles>(at, p.segments[s].group, centre, sum_x, values, total);
  }
  over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
    const int left = at[t.value].rows - r.value * V::kLanes;
    float* y = at[t.value].y + token * m.N + r.value * V::kLanes;
    if (left >= V::kLanes) V::store(y, total[t.value][r.value]);
    else if (left > 0) V::store_first(y, total[t.value][r.value], left);
  });
}

struct NoSteps {
  NoSteps(const QMatrix&, bool) {}
};

// body(tiles' numbers) for tiles 0 .. tiles - 1, kTilesAtOnce together that lie far apart. One that is left over comes
// with itself: the code for fewer would be as long again.
template <typename V, typename Body>
SLMC_INLINE void over_tiles(int64_t tiles, const Body& body) {
  constexpr int at_once = kTilesAtOnce<V>;
  const int64_t apart = (tiles + at_once - 1) / at_once;
  for (int64_t i = 0; i < apart; ++i) {
    int64_t numbers[at_once];
    for (int t = 0; t < at_once; ++t) numbers[t] = std::min(i + t * apart, tiles - 1);
    body(numbers);
  }
}

// Output features first .. last; `first` is a multiple of kRowTile.
template <typename V, int bits, bool integer, bool table = false>
void tiles_range(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last) {
  constexpr int at_once = kTilesAtOnce<V>;
  std::conditional_t<table, Steps, NoSteps> steps(m, integer && !V::kSignedCodes8);
  const auto with_steps = [&](TileTensors at) {
    if constexpr (table) at.steps = &steps;
    return at;
  };
  TileTensors at[at_once];
  const auto multiply = [&] {
    for (int64_t t = 0; t < p.tokens; ++t) multiply_tiles<V, bits, integer, at_once, false, table>(m, &p, t, at);
  };
  const int64_t end = last < m.tiled ? last : m.tiled;
  over_tiles<V>(end > first ? (end - first) / kTile : 0, [&](const int64_t* numbers) SLMC_LAMBDA {
    for (int t = 0; t < at_once; ++t) at[t] = with_steps(tile_at(m, first + numbers[t] * kTile, y));
    multiply();
  });
  const int64_t rows = first > m.tiled ? first : m.tiled, bytes = tile_bytes(m);
  if (rows >= last) return;
  auto* memory = reinterpret_cast<uint8_t*>(thread_floats(at_once * bytes / 4));
  for (int64_t n = rows; n < last; n += at_once * kTile) {
    at[0] = with_steps(tile_of_rows<V>(m, n, y, memory));
    for (int t = 1; t < at_once; ++t)
      at[t] = n + t * kTile < last ? with_steps(tile_of_rows<V>(m, n + t * kTile, y, memory + t * bytes)) : at[0];
    multiply();
  }
}

}  // namespace
}  // namespace slmc
