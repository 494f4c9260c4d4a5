// Attention in plain C++, in float32: the reference of the vector kernels, and for widths that they do not take.
#include <algorithm>
#include <cmath>

#include "attention_kernels.h"
#include "kernels.h"
#include "matrix.h"

namespace slmc::portable {
namespace {

constexpr int kSums = 8;  // independent, so that the compiler can use vectors

template <typename Element>
float dot(const float* a, const Element* b, int64_t count) {
  float sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= count; i += kSums)
    for (int lane = 0; lane < kSums; ++lane) sums[lane] += a[i + lane] * static_cast<float>(b[i + lane]);
  for (; i < count; ++i) sums[0] += a[i] * static_cast<float>(b[i]);
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

// One query over slots first .. end - 1, at most a block of them.
template <typename Element>
void attend_block(const AttentionPart& part, int64_t query, int64_t first, int64_t end) {
  const int64_t width = part.width;
  const auto *keys = static_cast<const Element*>(part.keys), *values = static_cast<const Element*>(part.values);
  const auto scale = [](const float* scales, int64_t slot) { return scales ? scales[slot] : 1.0f; };
  float shares[kBlockSlots], *mixed = part.mixed + query * width, &total = part.total[query];
  float &most = part.most[query], before = most;
  for (int64_t s = first; s < end; ++s) {
    float& score = shares[s - first];
    score = dot(part.q + query * width, keys + s * width, width) * scale(part.key_scales, s);
    if (part.cap > 0) score = part.cap * std::tanh(score / part.cap);
    most = std::max(most, score);
  }
  const float shrink = std::exp(before - most);
  total *= shrink;
  for (int64_t i = 0; i < width; ++i) mixed[i] *= shrink;
  for (int64_t s = first; s < end; ++s) {
    const float share = std::exp(shares[s - first] - most);
    const float weight = share * scale(part.value_scales, s);
    total += share;
    for (int64_t i = 0; i < width; ++i) mixed[i] += weight * static_cast<float>(values[s * width + i]);
  }
}

template <typename Element>
void attend(const AttentionPart& part) {
  std::fill_n(part.most, part.queries, -INFINITY);
  std::fill_n(part.total, part.queries, 0.0f);
  std::fill_n(part.mixed, part.queries * part.width, 0.0f);
  for (int64_t first = part.first; first < part.end; first += kBlockSlots)
    for (int64_t query = 0; query < part.queries; ++query) {
      const int64_t seen = part.own + query / part.shared + 1, from = std::max(first, seen - part.window);
      const int64_t end = std::min({part.end, first + kBlockSlots, seen});
      if (from < end) attend_block<Element>(part, query, from, end);
    }
}

// float16 as it lies in memory.
struct Half {
  uint16_t bits;
  explicit operator float() const { return half_to_float(bits); }
};

}  // namespace

const AttentionKernels attention = {attend<float>, attend<Half>, attend<int8_t>};

}  // namespace slmc::portable
