// Attention of the queries of one group over blocks of its cache, on one vector type V.
//
// Softmax is taken in one pass (arXiv 1805.02867): a block whose largest score is above all before shrinks what they
// summed up to.
#pragma once
#include "attention_codes-inl.h"

namespace slmc {
namespace {

// Vectors whose exponentials are worked out side by side: each is one long chain, which processors that issue in order
// wait for.
template <typename V>
constexpr int kTogether = V::kLanes == 4 ? 4 : 2;

// e^x for x <= 88, relative error below 2e-7; 0 below -88. As `exponential` of elementary.h.
template <typename V>
SLMC_INLINE typename V::F exponentials(typename V::F x) {
  x = V::max(V::set(-88.0f), x);  // in this order NaN stays
  const typename V::I n = V::round(V::mul(x, V::set(1.44269504088896341f)));
  const typename V::F whole = V::to_float(n);
  typename V::F r = V::fnma(whole, V::set(0.693359375f), x);
  r = V::fnma(whole, V::set(-2.12194440e-4f), r);
  typename V::F p = V::fma(V::set(1.9875691500e-4f), r, V::set(1.3981999507e-3f));
  p = V::fma(p, r, V::set(8.3334519073e-3f));
  p = V::fma(p, r, V::set(4.1665795894e-2f));
  p = V::fma(p, r, V::set(1.6666665459e-1f));
  p = V::fma(p, r, V::set(5.0000001201e-1f));
  p = V::add(V::fma(V::mul(p, r), r, r), V::set(1.0f));
  return V::mul(p, V::as_float(V::template left<23>(V::add(n, V::set(int32_t{127})))));
}

// cap tanh(score / cap), by tanh(x) = 1 - 2 / (e^2x + 1).
template <typename V>
SLMC_INLINE void bend(float* scores, int64_t room, float cap) {
  alignas(64) float raised[kBlockSlots];
  for (int64_t i = 0; i < room; i += kTogether<V> * V::kLanes) {
    typename V::F x[kTogether<V>];
    unrolled<kTogether<V>>([&](auto r) {
      const typename V::F score = V::mul(V::load(scores + i + r.value * V::kLanes), V::set(2.0f / cap));
      x[r.value] = exponentials<V>(V::sub(V::zero(), V::max(V::set(-40.0f), V::sub(V::zero(), score))));
    });
    unrolled<kTogether<V>>([&](auto r) { V::store(raised + i + r.value * V::kLanes, x[r.value]); });
  }
  for (int64_t i = 0; i < room; ++i) scores[i] = cap - 2.0f * cap / (raised[i] + 1.0f);
}

// Scores become shares; returns what the sums so far are to be multiplied by. Of `room` slots first .. seen - 1 count.
template <typename V>
SLMC_INLINE float take_shares(float* scores, int64_t first, int64_t seen, int64_t room, float* most, float* total) {
  for (int64_t i = 0; i < first; ++i) scores[i] = -INFINITY;
  for (int64_t i = seen; i < room; ++i) scores[i] = -INFINITY;
  typename V::F top = V::load(scores);
  for (int64_t i = V::kLanes; i < room; i += V::kLanes) top = V::max(top, V::load(scores + i));
  const float before = *most;
  *most = larger(before, V::largest(top));
  typename V::F sums[kTogether<V>];
  unrolled<kTogether<V>>([&](auto r) { sums[r.value] = V::zero(); });
  for (int64_t i = 0; i < room; i += kTogether<V> * V::kLanes) {
    typename V::F shares[kTogether<V>];
    unrolled<kTogether<V>>([&](auto r) {
      const typename V::F score = V::load(scores + i + r.value * V::kLanes);
      shares[r.value] = exponentials<V>(V::sub(score, V::set(*most)));
    });
    unrolled<kTogether<V>>([&](auto r) {
      V::store(scores + i + r.value * V::kLanes, shares[r.value]);
      sums[r.value] = V::add(sums[r.value], shares[r.value]);
    });
  }
  const float shrink = before == *most ? 1.0f : exponential(before - *most);
  unrolled<kTogether<V> - 1>([&](auto r) { sums[0] = V::add(sums[0], sums[r.value + 1]); });
  *total = *total * shrink + V::sum(sums[0]);
  return shrink;
}

// Brings a block's rows into the cache of the processor, some at a time beside other work: their runs are too short for it
// to do so alone, and it takes only a few orders at once.
template <typename V>
class Fetch {
 public:
  template <typename Cache>
  SLMC_INLINE Fetch(const AttentionPart& part, const Cache&, int64_t slot) {
    const int64_t row_bytes = part.width * Cache::kElementBytes, left = part.end - slot;
    keys_ = static_cast<const uint8_t*>(part.keys) + slot * row_bytes;
    values_ = static_cast<const uint8_t*>(part.values) + slot * row_bytes;
    bytes_ = (left < kBlockSlots ? left : kBlockSlots) * row_bytes;
  }

  // The next lines of 64 bytes of keys and of values.
  SLMC_INLINE void some(int64_t lines) {
    const int64_t end = at_ + 64 * lines < bytes_ ? at_ + 64 * lines : bytes_;
    for (; at_ < end; at_ += 64) {
      V::prefetch(keys_ + at_);
      V::prefetch(values_ + at_);
    }
  }

 private:
  const uint8_t *keys_, *values_;
  int64_t bytes_, at_ = 0;
};
constexpr int64_t kLinesAtOnce = 10;

template <typename V, int queries, typename Cache>
SLMC_INLINE void attend_queries(const AttentionPart& part, const Cache& cache, int64_t query, int64_t slot,
                                int64_t count, Fetch<V>& next) {
  alignas(64) float scores[queries][kBlockSlots];
  float shrink[queries];
  cache.template score<queries>(query, scores);
  next.some(kLinesAtOnce);
  constexpr int64_t kStep = kTogether<V> * V::kLanes;
  const int64_t room = (count + kStep - 1) / kStep * kStep;
  for (int i = 0; i < queries; ++i) {
    const int64_t seen = part.own + (query + i) / part.shared + 1 - slot;
    if (part.cap > 0) bend<V>(scores[i], room, part.cap);
    shrink[i] = take_shares<V>(scores[i], seen - part.window, seen < count ? seen : count, room, part.most + query + i,
                               part.total + query + i);
  }
  next.some(kLinesAtOnce);
  cache.template mix<queries>(query, scores, shrink);
  next.some(kLinesAtOnce);
}

template <typename V, typename Cache>
void attend(const AttentionPart& part) {
  for (int64_t i = 0; i < part.queries; ++i) {
    part.most[i] = -INFINITY;
    part.total[i] = 0;
  }
  for (int64_t i = 0; i < part.queries * part.width; ++i) part.mixed[i] = 0;
  Cache cache(part);
  for (int64_t slot = part.first; slot < part.end; slot += kBlockSlots) {
    const int64_t count = part.end - slot < kBlockSlots ? part.end - slot : kBlockSlots;
    Fetch<V> next(part, cache, slot + kBlockSlots);
    next.some(kLinesAtOnce);
    cache.take(slot, count);
    next.some(kLinesAtOnce);
    int64_t query = slot > part.own ? (slot - part.own) * part.shared : 0;
    const int64_t near = (slot + count - 1 - part.own + part.window) * part.shared;  // those behind see none of these
    const int64_t queries = near < part.queries ? near : part.queries;
    for (; query + V::kQueries <= queries; query += V::kQueries)
      attend_queries<V, V::kQueries>(part, cache, query, slot, count, next);
    for (; query < queries; ++query) attend_queries<V, 1>(part, cache, query, slot, count, next);
  }
}

template <typename V>
constexpr AttentionKernels attention_kernels_of() {
  return {attend<V, FloatCache<V>>, attend<V, HalfCache<V>>, attend<V, CodeCache<V>>};
}

}  // namespace
}  // namespace slmc
