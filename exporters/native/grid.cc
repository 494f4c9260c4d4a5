// Range search: which of several candidate grids rounds each group of weights with the least weighted error.
//
//   error = sum_k importance[k] (w[k] - scale (clamp(round(w[k] / scale) + zero, 0, levels - 1) - zero))^2
//
// or, for the steps of a table, sum_k importance[k] (w[k] - scale nearest(w[k] / scale))^2, where nearest[i] is the step
// nearest to all numbers of the interval from i / 2 - 128 on.
//
// Weights are [group, size]; importance is [groups_per_row, size], repeated for every row; candidates' scales (and
// zeros, or one zero for all) are [candidate, group]. Writes the first best candidate's index of every group.
#include "clones.h"

namespace {

SLMC_INLINE float weighted_error(const float* w, const float* importance, int64_t size, float scale, float zero,
                                 float top) {
  constexpr int64_t kLanes = 16;  // separate sums, so that the reduction vectorises in a fixed order
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer, ties to even
  float sums[kLanes] = {};
  auto error_of = [&](int64_t k) {
    float ratio = w[k] / scale;
    ratio = ratio > 1e6f ? 1e6f : (ratio < -1e6f ? -1e6f : ratio);
    float code = ((ratio + magic) - magic) + zero;
    code = code < 0.0f ? 0.0f : (code > top ? top : code);
    const float e = w[k] - scale * (code - zero);
    return importance[k] * e * e;
  };
  int64_t k = 0;
  for (; k + kLanes <= size; k += kLanes) {
    SLMC_LANES
    for (int64_t i = 0; i < kLanes; ++i) sums[i] += error_of(k + i);
  }
  for (int64_t i = 0; k + i < size; ++i) sums[i] += error_of(k + i);
  float total = 0.0f;
  for (float s : sums) total += s;
  return total;
}

constexpr int64_t kHalves = 512;  // intervals of a table

SLMC_INLINE float weighted_error_of_steps(const float* w, const float* importance, int64_t size, float scale,
                                          const float* nearest) {
  constexpr int64_t kLanes = 16;
  const float halves = 2.0f / scale;
  float sums[kLanes] = {};
  auto error_of = [&](int64_t k) {
    float at = w[k] * halves + static_cast<float>(kHalves / 2);
    at = at < 0.0f ? 0.0f : (at > kHalves - 1 ? kHalves - 1 : at);
    const float e = w[k] - scale * nearest[static_cast<int32_t>(at)];
    return importance[k] * e * e;
  };
  int64_t k = 0;
  for (; k + kLanes <= size; k += kLanes) {
    SLMC_LANES
    for (int64_t i = 0; i < kLanes; ++i) sums[i] += error_of(k + i);
  }
  for (int64_t i = 0; k + i < size; ++i) sums[i] += error_of(k + i);
  float total = 0.0f;
  for (float s : sums) total += s;
  return total;
}

SLMC_INLINE void best_grid(const float* weights, const float* importance, const float* scales, const float* zeros,
                           const float* nearest, int32_t* best, int64_t groups, int64_t size, int64_t groups_per_row,
                           int64_t candidates, float zero, float levels) {
  for (int64_t g = 0; g < groups; ++g) {
    const float* w = weights + g * size;
    const float* h = importance + (g % groups_per_row) * size;
    float least = 0.0f;
    for (int64_t c = 0; c < candidates; ++c) {
      const float z = zeros ? zeros[c * groups + g] : zero;
      const float scale = scales[c * groups + g];
      const float error = nearest ? weighted_error_of_steps(w, h, size, scale, nearest)
                                  : weighted_error(w, h, size, scale, z, levels - 1.0f);
      if (c == 0 || error < least) {
        least = error;
        best[g] = static_cast<int32_t>(c);
      }
    }
  }
}

}  // namespace

extern "C" SLMC_EXPORT void slmc_best_grid_f32(const float* weights, const float* importance, const float* scales,
                                               const float* zeros, const float* nearest, int32_t* best, int64_t groups,
                                               int64_t size, int64_t groups_per_row, int64_t candidates, float zero,
                                               float levels) {
  slmc::dispatched<best_grid>(weights, importance, scales, zeros, nearest, best, groups, size, groups_per_row,
                              candidates, zero, levels);
}
