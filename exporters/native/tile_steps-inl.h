// Sums over a tile's codes that stand for steps of a table. Included by one file per instruction set, with its V.
#pragma once
#include "steps_table-inl.h"
#include "tile_tensors-inl.h"

namespace slmc {
namespace {

// Adds (sum of step * q) over blocks of so many codes that stand for steps of a table; code by code, both planes
// together.
template <typename V, int bits, int tiles, int codes_of_block>
SLMC_INLINE void add_steps(const Steps& steps, const uint8_t* const* low, const uint8_t* const* high, const int8_t* q,
                           int64_t blocks, typename V::I (*sum)[kTileVectors<V>]) {
  using L = Layout<V, bits>;
  using I = typename V::I;
  constexpr int vectors = kTileVectors<V>, count = L::low * codes_of_block / 32;  // words of a block
  I apart[tiles][vectors][2];  // sums that do not wait for one another
  over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
    apart[t.value][r.value][0] = apart[t.value][r.value][1] = V::set(int32_t{0});
  });
  for (int64_t block = 0; block < blocks; ++block)
    unrolled<count>([&](auto w) SLMC_LAMBDA {
      constexpr int first = w.value * L::per_lane * L::high;  // of the block's high bits
      I words[tiles][vectors], more[tiles][vectors];
      over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
        const uint8_t* at = low[t.value] + ((block * count + w.value) * kTile + r.value * V::kLanes) * 4;
        words[t.value][r.value] = V::load(at);
        V::keep(words[t.value][r.value]);
        if constexpr (r.value * V::kLanes * 4 % 64 == 0) V::prefetch(at + kThinAhead);
        if constexpr (L::high > 0) {
          const uint8_t* above = high[t.value] + ((block * L::high + first / 32) * kTile + r.value * V::kLanes) * 4;
          more[t.value][r.value] = V::load(above);
          if constexpr (r.value * V::kLanes * 4 % 64 == 0 && first % 32 == 0) V::prefetch(above + kThinAhead);
        }
      });
      unrolled<L::parts>([&](auto j) SLMC_LAMBDA {
        const I x = V::broadcast(q + block * codes_of_block + (w.value * L::parts + j.value) * 4);
        over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
          const I bytes =
              steps_of<V, bits, j.value, first % 32>(steps, words[t.value][r.value], more[t.value][r.value]);
          I& to = apart[t.value][r.value][j.value % 2];
          to = V::template dot<8>(to, bytes, x);
        });
      });
    });
  over_vectors<V, tiles>([&](auto t, auto r) SLMC_LAMBDA {
    I& to = sum[t.value][r.value];
    to = V::add(to, V::add(apart[t.value][r.value][0], apart[t.value][r.value][1]));
  });
}

}  // namespace
}  // namespace slmc
