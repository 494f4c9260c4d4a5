// Blocks of a cache of int8, multiplied as integers alone.
//
// A query and the shares of a block are rounded to integers of 14 bits, each two bytes: x ~ step * (128 high + low). One
// byte of a query would move scores by up to a hundredth; two keep what the float reference says to four digits.
//
// Values lie as [slots / 4][width] words of four slots, where a lane is a column.
#pragma once
#include <algorithm>
#include <cstring>

#include "attention_cache-inl.h"

namespace slmc {
namespace {

constexpr float kLargestPair = 127 * 128;  // of 14 bits

// x[i] * per_unit rounded, as 128 high[i] + low[i]; returns the lanes' sums of those integers. low is 0 .. 127.
template <typename V>
SLMC_INLINE typename V::I split_bytes(const float* x, float per_unit, int64_t count, int8_t* high, int8_t* low) {
  typename V::I sum = V::set(int32_t{0});
  for (int64_t i = 0; i < count; i += V::kLanes) {
    const typename V::I whole = V::round(V::mul(V::load(x + i), V::set(per_unit)));
    V::store_bytes(high + i, V::template right_signed<7>(whole));
    V::store_bytes(low + i, V::and_(whole, V::set(int32_t{127})));
    sum = V::add(sum, whole);
  }
  return sum;
}

// sum + the products of two vectors of bytes, a of so many bits without a sign or of 8 with one.
template <typename V, int bits>
SLMC_INLINE typename V::I dot_two(typename V::I sum, const typename V::I (&a)[2], const typename V::I (&b)[2]) {
  if constexpr (V::kPanelPairs)
    return V::add_widened(sum, V::template add_pairs<bits>(V::template pairs<bits>(a[0], b[0]), a[1], b[1]));
  else return V::template dot<bits>(V::template dot<bits>(sum, a[0], b[0]), a[1], b[1]);
}

// A cache of int8 with a scale per slot.
template <typename V>
class CodeCache {
  using F = typename V::F;
  using I = typename V::I;

 public:
  static constexpr int64_t kElementBytes = sizeof(int8_t);

  SLMC_INLINE explicit CodeCache(const AttentionPart& part)
      : part_(part), key_rows_(part.keys, part.width, part.first, kBlockSlots),
        value_rows_(part.values, part.width, part.first, kBlockSlots) {
    const int64_t width = part.width;
    keys_ = reinterpret_cast<int32_t*>(part.scratch);
    values_ = keys_ + kBlockSlots * width / 4;
    key_scales_ = reinterpret_cast<float*>(values_ + kBlockSlots * width / 4);
    value_scales_ = key_scales_ + kBlockSlots;
    steps_ = value_scales_ + kBlockSlots;
    starts_ = reinterpret_cast<int32_t*>(steps_ + part.queries);
    q_ = reinterpret_cast<int8_t*>(starts_ + part.queries);
    for (int64_t i = 0; i < part.queries; ++i) {
      const float* row = part.q + i * width;
      F largest = V::zero(), wrong = V::zero();  // NaN of any that is not finite
      for (int64_t d = 0; d < width; d += V::kLanes) {
        largest = V::max_abs(largest, V::load(row + d));
        wrong = V::fma(V::load(row + d), V::zero(), wrong);
      }
      const float most = V::largest(largest);
      steps_[i] = most / kLargestPair + V::sum(wrong);
      int8_t* high = q_ + 2 * i * width;
      const I sum = split_bytes<V>(row, most > 1e-30f ? kLargestPair / most : 0.0f, width, high, high + width);
      starts_[i] = V::kSignedCodes8 ? 0 : -128 * V::sum(sum);
    }
  }

  SLMC_INLINE void take(int64_t slot, int64_t count) {
    count_ = count;
    const int64_t width = part_.width;
    if (count == kBlockSlots) {
      lay(key_rows_, value_rows_, (slot - part_.first) * width, kBlockSlots);
    } else {
      lay(BlockRows(part_.keys, width, slot, count), BlockRows(part_.values, width, slot, count), 0, count);
    }
    std::memcpy(key_scales_, part_.key_scales + slot, count * sizeof(float));
    std::memcpy(value_scales_, part_.value_scales + slot, count * sizeof(float));
    std::fill(key_scales_ + count, key_scales_ + kBlockSlots, 0.0f);
    std::fill(value_scales_ + count, value_scales_ + kBlockSlots, 0.0f);
  }

  template <int queries>
  SLMC_INLINE void score(int64_t query, float (*scores)[kBlockSlots]) const {
    const int64_t width = part_.width;
    const int8_t* q = q_ + 2 * query * width;
    for (int64_t slot = 0; slot < count_; slot += kRun * V::kLanes) {
      I high[queries][kRun], low[queries][kRun];
      unrolled<queries>([&](auto i) {
        unrolled<kRun>([&](auto r) {
          high[i.value][r.value] = V::set(int32_t{0});
          low[i.value][r.value] = V::set(starts_[query + i.value]);
        });
      });
      for (int64_t d = 0; d < width; d += 8) {
        const int32_t* row = keys_ + d / 4 * kBlockSlots + slot;
        unrolled<queries>([&](auto i) {
          const int8_t* at = q + 2 * i.value * width + d;
          const I x_high[] = {V::broadcast(at), V::broadcast(at + 4)};
          const I x_low[] = {V::broadcast(at + width), V::broadcast(at + width + 4)};
          unrolled<kRun>([&](auto r) {
            const int32_t* from = row + r.value * V::kLanes;
            const I codes[] = {V::load(from), V::load(from + kBlockSlots)};
            high[i.value][r.value] = dot_two<V, 8>(high[i.value][r.value], codes, x_high);
            low[i.value][r.value] = dot_two<V, 8>(low[i.value][r.value], codes, x_low);
          });
        });
      }
      unrolled<queries>([&](auto i) {
        unrolled<kRun>([&](auto r) {
          const int64_t at = slot + r.value * V::kLanes;
          const F scale = V::mul(V::load(key_scales_ + at), V::set(steps_[query + i.value]));
          V::store(scores[i.value] + at, V::mul(joined(high[i.value][r.value], low[i.value][r.value]), scale));
        });
      });
    }
  }

  template <int queries>
  SLMC_INLINE void mix(int64_t query, const float (*shares)[kBlockSlots], const float* shrink) const {
    Weights weights[queries];
    unrolled<queries>([&](auto i) { weigh(shares[i.value], &weights[i.value]); });
    int64_t column = 0;
    for (; column + kRun * V::kLanes <= part_.width; column += kRun * V::kLanes)
      mix_columns<queries, kRun>(query, weights, shrink, column);
    for (; column < part_.width; column += V::kLanes) mix_columns<queries, 1>(query, weights, shrink, column);
  }

 private:
  // Rows that lie so far from where `keys` and `values` say.
  SLMC_INLINE void lay(const BlockRows& keys, const BlockRows& values, int64_t far, int64_t count) {
    const int64_t width = part_.width;
    lay_slots_in_lanes<V, !V::kSignedCodes8>(keys, width, count, keys_, far);
    for (int64_t row = 0; row < count; row += 4)
      for (int64_t column = 0; column < width; column += 16) {
        I words[16 / V::kLanes];
        V::interleave(values.of + row, far + column, words);
        for (int i = 0; i < 16 / V::kLanes; ++i) V::store(values_ + row / 4 * width + column + i * V::kLanes, words[i]);
      }
  }

  struct Weights {
    alignas(64) int8_t high[kBlockSlots], low[kBlockSlots];
    float step;
  };

  static SLMC_INLINE F joined(I high, I low) { return V::to_float(V::add(V::template left<7>(high), low)); }

  // Shares times the scales of their slots' values.
  SLMC_INLINE void weigh(const float* shares, Weights* out) const {
    alignas(64) float scaled[kBlockSlots];
    F largest = V::zero();
    for (int64_t i = 0; i < count_; i += V::kLanes) {
      const F weight = V::mul(V::load(shares + i), V::load(value_scales_ + i));
      largest = V::max_abs(largest, weight);
      V::store(scaled + i, weight);
    }
    const float most = V::largest(largest);
    out->step = most / kLargestPair;
    split_bytes<V>(scaled, most > 1e-30f ? kLargestPair / most : 0.0f, count_, out->high, out->low);
  }

  template <int queries, int vectors>
  SLMC_INLINE void mix_columns(int64_t query, const Weights* weights, const float* shrink, int64_t column) const {
    I high[queries][vectors], low[queries][vectors];
    unrolled<queries>([&](auto i) {
      unrolled<vectors>([&](auto r) { high[i.value][r.value] = low[i.value][r.value] = V::set(int32_t{0}); });
    });
    int64_t slot = 0;
    for (; slot + 4 < count_; slot += 8)
      unrolled<queries>([&](auto i) {
        const int8_t *of_high = weights[i.value].high + slot, *of_low = weights[i.value].low + slot;
        const I w_high[] = {V::broadcast(of_high), V::broadcast(of_high + 4)};
        const I w_low[] = {V::broadcast(of_low), V::broadcast(of_low + 4)};
        unrolled<vectors>([&](auto r) {
          const int32_t* from = values_ + slot / 4 * part_.width + column + r.value * V::kLanes;
          const I codes[] = {V::load(from), V::load(from + part_.width)};
          high[i.value][r.value] = dot_two<V, 7>(high[i.value][r.value], w_high, codes);
          low[i.value][r.value] = dot_two<V, 7>(low[i.value][r.value], w_low, codes);
        });
      });
    if (slot < count_)
      unrolled<queries>([&](auto i) {
        const I w_high = V::broadcast(weights[i.value].high + slot), w_low = V::broadcast(weights[i.value].low + slot);
        unrolled<vectors>([&](auto r) {
          const I codes = V::load(values_ + slot / 4 * part_.width + column + r.value * V::kLanes);
          high[i.value][r.value] = V::template dot<7>(high[i.value][r.value], w_high, codes);
          low[i.value][r.value] = V::template dot<7>(low[i.value][r.value], w_low, codes);
        });
      });
    unrolled<queries>([&](auto i) {
      unrolled<vectors>([&](auto r) {
        float* at = part_.mixed + (query + i.value) * part_.width + column + r.value * V::kLanes;
        const F before = V::mul(V::load(at), V::set(shrink[i.value]));
        const F sum = joined(high[i.value][r.value], low[i.value][r.value]);
        V::store(at, V::fma(sum, V::set(weights[i.value].step), before));
      });
    });
  }

  const AttentionPart& part_;
  BlockRows key_rows_, value_rows_;  // of the part's first block: the others lie behind it likewise
  int32_t *keys_, *values_;
  float *key_scales_, *value_scales_;
  float* steps_;     // of the queries
  int32_t* starts_;  // of their sums: codes without a sign are 128 too large
  int8_t* q_;        // [queries][2][width], high bytes and low ones
  int64_t count_ = 0;
};

}  // namespace
}  // namespace slmc
