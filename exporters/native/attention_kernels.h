// The face of the kernels that attend to a cache.
#pragma once
#include <cstdint>

#include "elementary.h"

namespace slmc {

constexpr int64_t kBlockSlots = 64;  // of a cache that are attended to at once

// Some queries of one group over slots first .. end - 1 of its cache. Query i belongs to token i / shared and sees the
// last `window` slots up to own + i / shared.
struct AttentionPart {
  const float* q;  // [queries, width], turned and scaled
  int64_t queries, shared, width;
  int64_t own, first, end, window;
  float cap;                               // scores become cap tanh(score / cap); 0 leaves them
  const void *keys, *values;               // [slots, width], float, float16 or int8
  const float *key_scales, *value_scales;  // [slots], of int8
  float* scratch;                          // of attention_scratch(queries, width) bytes, aligned to 64

  // Of every query over its slots: the largest score m, the sum of e^(score - m), and [width] the values times that.
  float *most, *total, *mixed;
};

struct AttentionKernels {
  void (*floats)(const AttentionPart&);
  void (*halves)(const AttentionPart&);
  void (*codes)(const AttentionPart&);
};

// Keys and values of a block made ready, at most as float32, and the queries as bytes.
SLMC_INLINE constexpr int64_t attention_scratch(int64_t queries, int64_t width) {
  return kBlockSlots * (2 * width + 2) * 4 + queries * (2 * width + 8) + 64;
}

// Vector kernels take heads whose width is a multiple of 16; sums of wider ones than this leave 32 bits.
constexpr int64_t kWidestHead = 512;

// Of the instruction set in use.
const AttentionKernels& attention_kernels(int64_t width);

}  // namespace slmc
