// Activations made ready for the vector kernels: padded, rounded to 8 bits where asked, and put in the weights' order.
//
// Weights are unpacked by shifts and masks, which leaves them out of order; it costs less to put x in that order once:
//
//   panels, integer    word, part j, byte  <-  code word * per_word + byte * parts + j
//   panels, float      as they are
//   tiles, integer     as panels, once for each plane
//   tiles, float       as they are, padded
//
// per_word = 32 / low and parts = 8 / low. Included by one file per instruction set, with its V.
#pragma once
#include <limits>

#include "elementary.h"
#include "lanes.h"
#include "steps_table-inl.h"

namespace slmc {
namespace {

inline int64_t count_segments(const QMatrix& m) {
  return m.groups * ((m.group + kActivationGroup - 1) / kActivationGroup);
}

inline Segment* list_segments(const QMatrix& m, Arena& arena) {
  Segment* segments = arena.take<Segment>(count_segments(m));
  Segment* next = segments;
  for (int64_t g = 0; g < m.groups; ++g)
    for (int64_t k = 0; k < m.group; k += kActivationGroup) {
      const int64_t length = k + kActivationGroup < m.group ? kActivationGroup : m.group - k;
      *next++ = {static_cast<int32_t>(g * m.group + k), static_cast<int32_t>(length), static_cast<int32_t>(g)};
    }
  return segments;
}

// One segment to 127 steps either way; returns the step, adds up the integers. Where x has an infinity or a NaN, both
// are 0 and the step is NaN, which reaches every output of the token.
template <typename V>
SLMC_INLINE float quantise(const float* x, int64_t length, int8_t* q, int32_t* sum) {
  typename V::F largest = V::zero();
  typename V::F spoilt = V::zero();  // 0 * x is 0 where x is finite; the largest forgets a NaN
  for (int64_t k = 0; k < length; k += V::kLanes) {
    const typename V::F values = V::load(x + k);
    largest = V::max_abs(largest, values);
    spoilt = V::fma(values, V::zero(), spoilt);
  }
  if (V::sum(spoilt) != 0) {
    std::memset(q, 0, length);
    *sum = 0;
    return std::numeric_limits<float>::quiet_NaN();
  }
  const float most = V::largest(largest);
  const typename V::F inverse = V::set(steps_per_unit(most));
  typename V::I total = V::set(int32_t{0});
  for (int64_t k = 0; k < length; k += V::kLanes) {
    const typename V::I steps = V::round(V::mul(V::load(x + k), inverse));
    V::store_bytes(q + k, steps);
    total = V::add(total, steps);
  }
  *sum = V::sum(total);
  return most / 127.0f;
}

// x [K] with zeros behind, [padded].
inline const float* padded_row(const float* x, int64_t K, int64_t padded, float* buffer) {
  if (K == padded) return x;
  std::memcpy(buffer, x, K * sizeof(float));
  std::memset(buffer + K, 0, (padded - K) * sizeof(float));
  return buffer;
}

// Word by word of a plane of b bits: part j, byte <- code 32 / b * word + byte * parts + j.
template <typename V, int b>
SLMC_INLINE void order_words(const int8_t* natural, int64_t length, int8_t* out) {
  constexpr int parts = 8 / b, per_word = 32 / b;
  if constexpr (per_word <= 16) {
    uint8_t from[16];
    for (int i = 0; i < 16; ++i)
      from[i] = static_cast<uint8_t>(i / per_word * per_word + i % per_word / 4 + i % 4 * parts);
    for (int64_t k = 0; k < length; k += 16) V::shuffle(natural + k, from, out + k);
    return;
  }
  for (int64_t k = 0; k < length; k += per_word)
    for (int j = 0; j < parts; ++j)
      for (int byte = 0; byte < 4; ++byte) out[k + j * 4 + byte] = natural[k + byte * parts + j];
}

template <typename V>
void order_plane(int bits, const int8_t* natural, int64_t length, int8_t* out) {
  switch (bits) {
    case 1: return order_words<V, 1>(natural, length, out);
    case 2: return order_words<V, 2>(natural, length, out);
    case 4: return order_words<V, 4>(natural, length, out);
    default: return order_words<V, 8>(natural, length, out);
  }
}

template <typename V>
void prepare_product8(const QMatrix& m, Arena& arena, bool tiles, Prepared* p) {
  const int low = low_bits(m.bits), high = high_bits(m.bits);
  const int64_t length = m.padded(), segments = count_segments(m);
  const Segment* segment = list_segments(m, arena);
  auto* buffer = arena.take<float>(length);
  auto* natural = arena.take<int8_t>(length);
  auto* ordered = arena.take<int8_t>(p->tokens * length);
  auto* for_high = tiles && high && !m.steps ? arena.take<int8_t>(p->tokens * length) : nullptr;
  auto* start = arena.take<int32_t>(p->tokens * segments);
  auto* scales = arena.take<float>(p->tokens * segments);
  auto* sums = m.zeros ? arena.take<float>(p->tokens * segments) : nullptr;
  const bool as_bytes = m.bits == 8 || m.steps;
  const int32_t centre = as_bytes && V::kSignedCodes8 ? 0 : m.steps ? kStepCentre : m.centre();
  for (int64_t t = 0; t < p->tokens; ++t) {
    const float* x = padded_row(p->x + t * m.K, m.K, length, buffer);
    for (int64_t s = 0; s < segments; ++s) {
      int32_t sum;
      const int64_t i = t * segments + s;
      scales[i] = quantise<V>(x + segment[s].first, segment[s].length, natural + segment[s].first, &sum);
      start[i] = -centre * sum;
      if (sums) sums[i] = scales[i] * static_cast<float>(sum);
    }
    order_plane<V>(low, natural, length, ordered + t * length);
    if (for_high) order_plane<V>(high, natural, length, for_high + t * length);
  }
  p->way = tiles ? Prepared::kTiles8 : Prepared::kProduct8;
  p->quantised = ordered;
  p->for_high = for_high;
  p->start = start;
  p->scales = scales;
  p->sums = sums;
  p->segments = segment;
  p->segment_count = segments;
}

template <typename V>
void prepare_tiles32(const QMatrix& m, Arena& arena, Prepared* p) {
  const int64_t length = m.padded();
  p->segments = list_segments(m, arena);
  p->segment_count = count_segments(m);
  auto* padded = arena.take<float>(p->tokens * length);
  auto* sums = m.zeros ? arena.take<float>(p->tokens * p->segment_count) : nullptr;
  for (int64_t t = 0; t < p->tokens; ++t) {
    float* x = padded + t * length;
    std::memcpy(x, p->x + t * m.K, m.K * sizeof(float));
    std::memset(x + m.K, 0, (length - m.K) * sizeof(float));
    for (int64_t s = 0; sums && s < p->segment_count; ++s) {
      typename V::F total = V::zero();
      for (int64_t k = 0; k < p->segments[s].length; k += V::kLanes)
        total = V::add(total, V::load(x + p->segments[s].first + k));
      sums[t * p->segment_count + s] = V::sum(total);
    }
  }
  p->way = Prepared::kTiles32;
  p->padded = padded;
  p->sums = sums;
}

template <typename V>
Prepared prepare(const QMatrix& m, const float* x, int64_t tokens, int activation_bits, Arena& arena) {
  Prepared p;
  p.tokens = tokens;
  p.K = m.K;
  p.x = x;
  if (activation_bits == 8) {
    prepare_product8<V>(m, arena, tokens < V::kProductTokens8, &p);
  } else if (tokens >= V::kProductTokens32) {
    p.way = Prepared::kProduct32;
  } else {
    prepare_tiles32<V>(m, arena, &p);
  }
  return p;
}

}  // namespace
}  // namespace slmc
