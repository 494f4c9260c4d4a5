// Blocks of a cache made ready, for queries of float32.
//
// Keys lie as [width / 4][slot] words of four bytes, so that a lane is a slot and no sum crosses lanes.
#pragma once
#include "attention_kernels.h"
#include "lanes.h"

namespace slmc {
namespace {

constexpr int kRun = 4;  // vectors that are summed up at once, per query and byte

// Columns and slots of floats that are read together and have sums of their own: processors that issue in order wait for
// loads and for sums.
template <typename V>
constexpr int kAtOnce = V::kLanes == 4 && V::kRegisters == 32 ? 2 : 1;

// Slots beyond the last one are the last one again.
struct BlockRows {
  const uint8_t* of[kBlockSlots];

  SLMC_INLINE BlockRows(const void* cache, int64_t row_bytes, int64_t slot, int64_t count) {
    const auto* first = static_cast<const uint8_t*>(cache) + slot * row_bytes;
    for (int64_t i = 0; i < kBlockSlots; ++i) of[i] = first + (i < count ? i : count - 1) * row_bytes;
  }
};

// words[word][slot] of rows of `bytes`, a multiple of 16, each that far from where `rows` says.
template <typename V, bool flipped>
SLMC_INLINE void lay_slots_in_lanes(const BlockRows& rows, int64_t bytes, int64_t count, int32_t* words, int64_t far = 0) {
  for (int64_t slot = 0; slot < count; slot += V::kLanes)
    for (int64_t byte = 0; byte < bytes; byte += 16) {
      typename V::I four[4];
      V::transpose(rows.of + slot, far + byte, four);
      for (int i = 0; i < 4; ++i)
        V::store(words + (byte / 4 + i) * kBlockSlots + slot, flipped ? V::flip(four[i]) : four[i]);
    }
}

// A cache of float32.
template <typename V>
class FloatCache {
  using F = typename V::F;

 public:
  static constexpr int64_t kElementBytes = sizeof(float);

  SLMC_INLINE explicit FloatCache(const AttentionPart& part)
      : part_(part), keys_(reinterpret_cast<int32_t*>(part.scratch)) {}

  SLMC_INLINE void take(int64_t slot, int64_t count) {
    take_rows(static_cast<const float*>(part_.keys) + slot * part_.width, count);
    values_ = static_cast<const float*>(part_.values) + slot * part_.width;
  }

  template <int queries>
  SLMC_INLINE void score(int64_t query, float (*scores)[kBlockSlots]) const {
    constexpr int columns = kAtOnce<V>;
    const float* q = part_.q + query * part_.width;
    for (int64_t slot = 0; slot < count_; slot += kRun * V::kLanes) {
      F sums[columns][queries][kRun];
      unrolled<columns>([&](auto c) {
        unrolled<queries>([&](auto i) { unrolled<kRun>([&](auto r) { sums[c.value][i.value][r.value] = V::zero(); }); });
      });
      for (int64_t d = 0; d < part_.width; d += columns) {
        const auto* row = reinterpret_cast<const float*>(keys_) + d * kBlockSlots + slot;
        unrolled<columns>([&](auto c) {
          F keys[kRun];
          unrolled<kRun>([&](auto r) { keys[r.value] = V::load(row + c.value * kBlockSlots + r.value * V::kLanes); });
          unrolled<queries>([&](auto i) {
            const F x = V::set(q[i.value * part_.width + d + c.value]);
            unrolled<kRun>([&](auto r) {
              F& to = sums[c.value][i.value][r.value];
              to = V::fma(keys[r.value], x, to);
            });
          });
        });
      }
      unrolled<queries>([&](auto i) {
        unrolled<kRun>([&](auto r) {
          F all = sums[0][i.value][r.value];
          if constexpr (columns == 2) all = V::add(all, sums[1][i.value][r.value]);
          V::store(scores[i.value] + slot + r.value * V::kLanes, all);
        });
      });
    }
  }

  // mixed = shrink * mixed + shares times values
  template <int queries>
  SLMC_INLINE void mix(int64_t query, const float (*shares)[kBlockSlots], const float* shrink) const {
    int64_t column = 0;
    for (; column + kRun * V::kLanes <= part_.width; column += kRun * V::kLanes)
      mix_columns<queries, kRun>(query, shares, shrink, column);
    for (; column < part_.width; column += V::kLanes) mix_columns<queries, 1>(query, shares, shrink, column);
  }

 protected:
  SLMC_INLINE void take_rows(const float* keys, int64_t count) {
    count_ = count;
    const int64_t row_bytes = part_.width * 4;
    lay_slots_in_lanes<V, false>(BlockRows(keys, row_bytes, 0, count), row_bytes, count, keys_);
  }

  const AttentionPart& part_;
  int32_t* keys_;
  const float* values_ = nullptr;

 private:
  template <int queries, int vectors>
  SLMC_INLINE void mix_columns(int64_t query, const float (*shares)[kBlockSlots], const float* shrink,
                               int64_t column) const {
    float* mixed = part_.mixed + query * part_.width + column;
    F sums[queries][vectors];
    unrolled<queries>([&](auto i) {
      unrolled<vectors>([&](auto r) {
        const F before = V::load(mixed + i.value * part_.width + r.value * V::kLanes);
        sums[i.value][r.value] = V::mul(before, V::set(shrink[i.value]));
      });
    });
    for (int64_t slot = 0; slot < count_; ++slot) {
      const float* value = values_ + slot * part_.width + column;
      unrolled<queries>([&](auto i) {
        const F share = V::set(shares[i.value][slot]);
        unrolled<vectors>([&](auto r) {
          sums[i.value][r.value] = V::fma(V::load(value + r.value * V::kLanes), share, sums[i.value][r.value]);
        });
      });
    }
    unrolled<queries>([&](auto i) {
      unrolled<vectors>([&](auto r) {
        V::store(mixed + i.value * part_.width + r.value * V::kLanes, sums[i.value][r.value]);
      });
    });
  }

  int64_t count_ = 0;
};

// A cache of float16: a block at a time becomes float32.
template <typename V>
class HalfCache : public FloatCache<V> {
 public:
  static constexpr int64_t kElementBytes = sizeof(uint16_t);

  SLMC_INLINE explicit HalfCache(const AttentionPart& part)
      : FloatCache<V>(part), floats_(part.scratch + kBlockSlots * part.width) {}

  SLMC_INLINE void take(int64_t slot, int64_t count) {
    widen(this->part_.keys, slot, count);
    this->take_rows(floats_, count);
    widen(this->part_.values, slot, count);
    this->values_ = floats_;
  }

 private:
  SLMC_INLINE void widen(const void* cache, int64_t slot, int64_t count) {
    const uint16_t* from = static_cast<const uint16_t*>(cache) + slot * this->part_.width;
    for (int64_t i = 0; i < count * this->part_.width; i += V::kLanes) V::store(floats_ + i, V::load_halves(from + i));
  }

  float* floats_;  // [kBlockSlots, width], first the keys, then the values
};

}  // namespace
}  // namespace slmc
