#include "numeric.h"

#include "clones.h"

namespace {

constexpr int64_t kColumns = 64;

// Some columns of one row of a product; `sums` stays in registers.
template <int64_t columns>
SLMC_INLINE void multiply_columns(const float* x, const float* w, float* y, int64_t K, int64_t N) {
  float sums[columns] = {};
  for (int64_t k = 0; k < K; ++k) {
    const float factor = x[k];
    const float* row = w + k * N;
    SLMC_LANES
    for (int64_t n = 0; n < columns; ++n) sums[n] += factor * row[n];
  }
  for (int64_t n = 0; n < columns; ++n) y[n] = sums[n];
}

SLMC_INLINE void matmul(const float* x, const float* w, float* y, int64_t M, int64_t K, int64_t N, int64_t first,
                        int64_t last) {
  int64_t n = first;
  for (; n + kColumns <= last; n += kColumns)
    for (int64_t m = 0; m < M; ++m) multiply_columns<kColumns>(x + m * K, w + n, y + m * N + n, K, N);
  for (; n + 16 <= last; n += 16)
    for (int64_t m = 0; m < M; ++m) multiply_columns<16>(x + m * K, w + n, y + m * N + n, K, N);
  for (; n < last; ++n)
    for (int64_t m = 0; m < M; ++m) multiply_columns<1>(x + m * K, w + n, y + m * N + n, K, N);
}

SLMC_INLINE void softmax(const float* x, float* y, int64_t count) {
  float most = count ? x[0] : 0;
  for (int64_t i = 1; i < count; ++i) most = slmc::larger(most, x[i]);
  SLMC_LANES
  for (int64_t i = 0; i < count; ++i) y[i] = slmc::exponential(x[i] - most);
  float total = 0;
  for (int64_t i = 0; i < count; ++i) total += y[i];
  const float share = 1.0f / total;
  SLMC_LANES
  for (int64_t i = 0; i < count; ++i) y[i] *= share;
}

// Sixteen sums side by side: an order of additions that every instruction set can keep.
SLMC_INLINE float lane_sum(const float* x, int64_t count) {
  float sums[16] = {};
  int64_t i = 0;
  for (; i + 16 <= count; i += 16)
    for (int64_t lane = 0; lane < 16; ++lane) sums[lane] += x[i + lane];
  for (int64_t lane = 0; i < count; ++i, ++lane) sums[lane] += x[i];
  for (int64_t step = 8; step > 0; step /= 2)
    for (int64_t lane = 0; lane < step; ++lane) sums[lane] += sums[lane + step];
  return sums[0];
}

}  // namespace

extern "C" {

SLMC_EXPORT void slmc_run_matmul_f32(const float* x, const float* w, float* y, int64_t M, int64_t K, int64_t N,
                                     int64_t first, int64_t last) {
  slmc::dispatched<matmul>(x, w, y, M, K, N, first, last);
}

SLMC_EXPORT void slmc_run_softmax_f32(const float* x, float* y, int64_t count) {
  slmc::dispatched<softmax>(x, y, count);
}

SLMC_EXPORT float slmc_run_sum_f32(const float* x, int64_t count) {
  return slmc::dispatched<lane_sum>(x, count);
}

}  // extern "C"
