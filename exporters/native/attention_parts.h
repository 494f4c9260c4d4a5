// How a call of attention is cut into parts, and what is worked out before and after them.
//
// Parts depend on sizes alone, so that results do not depend on the number of threads.
#pragma once
#include <algorithm>
#include <cmath>
#include <vector>

#include "attention_kernels.h"

namespace slmc {
namespace {

constexpr int64_t kPartQueries = 96;  // of a part, where there are so many: they share a block made ready
constexpr int64_t kPartSlots = 512;   // of a part, where there are few queries
constexpr int64_t kManyParts = 16;    // which need not be split further for the threads' sake

// The sizes of one call. A token sees the last `window` slots up to its own.
struct Sizes {
  int64_t time, heads, groups, length, width, start, window;

  // The first slot that any token sees.
  int64_t floor() const { return std::max<int64_t>(0, start + 1 - window); }
};

// cos and sin of every new token's angles, [time, half] each; channels from 2 * half on stay as they are.
class Turns {
 public:
  Turns() = default;
  Turns(const Turns&) = delete;

  // As tables say.
  Turns(const float* cos, const float* sin, int64_t half) : cos_(cos), sin_(sin), half_(half) {}

  Turns(const Sizes& sizes, const std::vector<float>& frequencies) : half_(static_cast<int64_t>(frequencies.size())) {
    own_.resize(2 * sizes.time * half_);
    float *cos = own_.data(), *sin = cos + sizes.time * half_;
    for (int64_t t = 0; t < sizes.time; ++t)
      for (int64_t i = 0; i < half_; ++i) {
        const float angle = static_cast<float>(sizes.start + t) * frequencies[i];
        cos[t * half_ + i] = std::cos(angle);
        sin[t * half_ + i] = std::sin(angle);
      }
    cos_ = cos;
    sin_ = sin;
  }

  void apply(const float* row, int64_t t, int64_t width, float times, float* out) const {
    const int64_t half = half_;
    for (int64_t i = 2 * half; i < width; ++i) out[i] = row[i] * times;
    const float *c = cos_ + t * half, *s = sin_ + t * half;
    SLMC_LANES
    for (int64_t i = 0; i < half; ++i) {
      out[i] = (row[i] * c[i] - row[half + i] * s[i]) * times;
      out[half + i] = (row[half + i] * c[i] + row[i] * s[i]) * times;
    }
  }

 private:
  std::vector<float> own_;
  const float *cos_ = nullptr, *sin_ = nullptr;
  int64_t half_ = 0;
};

// How the work of one call is cut: tokens of a part, and slots of a part from the first one that is seen.
struct Parts {
  int64_t tokens, tiles, slots, stretches;

  explicit Parts(const Sizes& s) {
    tokens = std::max<int64_t>(1, kPartQueries / (s.heads / s.groups));
    tiles = (s.time + tokens - 1) / tokens;
    const int64_t used = s.start + s.time - s.floor();
    slots = tiles * s.groups < kManyParts ? kPartSlots : used;
    stretches = (used + slots - 1) / slots;
  }
  int64_t count(const Sizes& s) const { return s.groups * tiles * stretches; }
};

// What the parts of several stretches leave until they are added up, [stretch, group, token, shared head].
struct Stretches {
  std::vector<float> most, total, mixed;

  Stretches(const Sizes& s, const Parts& parts) {
    if (parts.stretches == 1) return;
    const int64_t queries = parts.stretches * s.time * s.heads;
    most.resize(queries);
    total.resize(queries);
    mixed.resize(queries * s.width);
  }

  // One query's softmax over all of them, from those of each, times `times`.
  void add_up(const Sizes& s, const Parts& parts, int64_t query, float times, float* y) const {
    const int64_t queries = s.time * s.heads;
    float top = -INFINITY, sum = 0.0f;
    for (int64_t i = 0; i < parts.stretches; ++i) top = larger(most[i * queries + query], top);
    std::fill(y, y + s.width, 0.0f);
    for (int64_t i = 0; i < parts.stretches; ++i) {
      const int64_t at = i * queries + query;
      if (total[at] == 0.0f) continue;  // it sees none of these slots
      const float shrink = std::exp(most[at] - top);
      sum += total[at] * shrink;
      for (int64_t d = 0; d < s.width; ++d) y[d] += mixed[at * s.width + d] * shrink;
    }
    sum /= times;
    for (int64_t d = 0; d < s.width; ++d) y[d] /= sum;
  }
};

}  // namespace
}  // namespace slmc
