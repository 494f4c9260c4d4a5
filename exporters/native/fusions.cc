// The elementwise steps between products, several in one pass over memory; every instruction set gives the same result.
#include "fusions.h"

#include "clones.h"

namespace {

using slmc::exponential;
using slmc::larger;

SLMC_INLINE float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

// The sum of term(0) .. term(count - 1), in lanes of its own so that the order is the same on every machine.
template <typename Term>
SLMC_INLINE float lane_sum(int64_t count, const Term& term) {
  constexpr int kLanes = 16;
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
  for (; i < count; ++i) lanes[i % kLanes] += term(i);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  return lanes[0];
}

struct Moments {
  float mean, inverse;
};

SLMC_INLINE Moments moments(const float* x, int64_t channels, float epsilon) {
  const float count = static_cast<float>(channels);
  const float mean = lane_sum(channels, [&](int64_t c) { return x[c]; }) / count;
  const float variance = lane_sum(channels, [&](int64_t c) { return (x[c] - mean) * (x[c] - mean); }) / count;
  return {mean, 1.0f / std::sqrt(variance + epsilon)};
}

template <int count>
SLMC_INLINE void shift_mix(const float* x, const float* weight, const float* bias, const float* const* mixes,
                           float* const* outs, float* before, int64_t time, int64_t channels, float epsilon) {
  for (int64_t t = 0; t < time; ++t) {
    const float* row = x + t * channels;
    const Moments of = moments(row, channels, epsilon);
    SLMC_LANES
    for (int64_t c = 0; c < channels; ++c) {
      const float n = (row[c] - of.mean) * of.inverse * weight[c] + bias[c];
      const float old = before[c];
      const float change = n - old;
      before[c] = n;
      outs[0][t * channels + c] = old + change * mixes[0][c];
      if (count > 1) outs[1][t * channels + c] = old + change * mixes[1][c];
      if (count > 2) outs[2][t * channels + c] = old + change * mixes[2][c];
    }
  }
}

template <bool gated>
SLMC_INLINE void spike_add(const float* residual, const float* current, const float* receptance, float* membrane,
                           float* sum, const slmc::Lif& neurons, const slmc::Recurrence& range) {
  const float tau = neurons.tau, threshold = neurons.threshold, reset = neurons.reset;
  for (int64_t t = 0; t < range.time; ++t) {
    const int64_t at = t * range.channels;
    SLMC_LANES
    for (int64_t c = range.first; c < range.last; ++c) {
      const float x = gated ? sigmoid(receptance[at + c]) * current[at + c] : current[at + c];
      const float v = membrane[c];
      const float u = v + (x - (v - reset)) / tau;
      const bool fires = u >= threshold;
      sum[at + c] = residual[at + c] + (fires ? 1.0f : 0.0f);
      membrane[c] = fires ? reset : u;
    }
  }
}

SLMC_INLINE void layer_norm(const float* x, const float* weight, const float* bias, float* n, int64_t channels,
                            float epsilon) {
  const Moments of = moments(x, channels, epsilon);
  SLMC_LANES
  for (int64_t c = 0; c < channels; ++c) n[c] = (x[c] - of.mean) * of.inverse * weight[c] + bias[c];
}

SLMC_INLINE void rms_norm(const float* x, const float* weight, float* y, int64_t channels, float epsilon) {
  const float squares = lane_sum(channels, [&](int64_t c) { return x[c] * x[c]; });
  const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(channels) + epsilon);
  SLMC_LANES
  for (int64_t c = 0; c < channels; ++c) y[c] = x[c] * inverse * weight[c];
}

SLMC_INLINE void mix_tokens(const float* x, const float* weight, const float* bias, const float* const* mixes,
                            float* const* outs, int count, float* before, int64_t time, int64_t channels,
                            float epsilon) {
  if (count == 2) shift_mix<2>(x, weight, bias, mixes, outs, before, time, channels, epsilon);
  if (count == 3) shift_mix<3>(x, weight, bias, mixes, outs, before, time, channels, epsilon);
}

SLMC_INLINE void gated_wkv(const float* w, const float* u, const float* key, const float* value,
                           const float* receptance, float* a, float* b, float* m, float* y,
                           const slmc::Recurrence& range) {
  for (int64_t t = 0; t < range.time; ++t) {
    const int64_t at = t * range.channels;
    SLMC_LANES
    for (int64_t c = range.first; c < range.last; ++c) {
      const float k = key[at + c], v = value[at + c];
      const float first = u[c] + k;
      const float top = larger(m[c], first);
      const float past = exponential(m[c] - top);
      const float now = exponential(first - top);
      const float average = (past * a[c] + now * v) / (past * b[c] + now);
      y[at + c] = sigmoid(receptance[at + c]) * average;
      const float decayed = m[c] + w[c];
      const float next = larger(decayed, k);
      const float keep = exponential(decayed - next);
      const float add = exponential(k - next);
      a[c] = keep * a[c] + add * v;
      b[c] = keep * b[c] + add;
      m[c] = next;
    }
  }
}

SLMC_INLINE void add_spikes(const float* residual, const float* current, const float* receptance, float* membrane,
                            float* sum, const slmc::Lif& neurons, const slmc::Recurrence& range) {
  if (receptance) return spike_add<true>(residual, current, receptance, membrane, sum, neurons, range);
  spike_add<false>(residual, current, nullptr, membrane, sum, neurons, range);
}

template <typename Op>
SLMC_INLINE void binary(const float* a, const float* b, int64_t step_b, float* y, int64_t count, const Op& op) {
  if (step_b == 0) {
    const float one = *b;
    SLMC_LANES
    for (int64_t i = 0; i < count; ++i) y[i] = op(a[i], one);
    return;
  }
  SLMC_LANES
  for (int64_t i = 0; i < count; ++i) y[i] = op(a[i], b[i]);
}

SLMC_INLINE void add(const float* a, const float* b, int64_t step_b, float* y, int64_t count) {
  binary(a, b, step_b, y, count, [](float p, float q) SLMC_LAMBDA { return p + q; });
}

SLMC_INLINE void multiply(const float* a, const float* b, int64_t step_b, float* y, int64_t count) {
  binary(a, b, step_b, y, count, [](float p, float q) SLMC_LAMBDA { return p * q; });
}

SLMC_INLINE void sigmoids(const float* x, float* y, int64_t count) {
  SLMC_LANES
  for (int64_t i = 0; i < count; ++i) y[i] = sigmoid(x[i]);
}

SLMC_INLINE void relu(const float* x, float* y, int64_t count) {
  SLMC_LANES
  for (int64_t i = 0; i < count; ++i) y[i] = larger(x[i], 0.0f);
}

// The error function as Abramowitz and Stegun's formula 7.1.26 has it, at most 1.5e-7 off.
SLMC_INLINE void gelu(const float* x, float* y, int64_t count) {
  SLMC_LANES
  for (int64_t i = 0; i < count; ++i) {
    const float u = std::fabs(x[i]) * 0.70710678118654752f;
    const float t = 1.0f / (1.0f + 0.3275911f * u);
    const float sum = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t;
    const float tail = 0.5f * sum * exponential(-u * u);  // of the normal distribution beyond |x|
    y[i] = x[i] * (x[i] < 0 ? tail : 1.0f - tail);
  }
}

// (1 + tanh u) / 2 is the sigmoid of 2 u.
SLMC_INLINE void gelu_tanh(const float* x, float* y, int64_t count) {
  SLMC_LANES
  for (int64_t i = 0; i < count; ++i) y[i] = x[i] * sigmoid(1.5957691216057308f * (x[i] + 0.044715f * x[i] * x[i] * x[i]));
}

SLMC_INLINE void squared_relu(const float* x, float* y, int64_t count) {
  SLMC_LANES
  for (int64_t i = 0; i < count; ++i) {
    const float above = larger(x[i], 0.0f);
    y[i] = above * above;
  }
}

}  // namespace

extern "C" {

SLMC_EXPORT void slmc_layer_norm_f32(const float* x, const float* weight, const float* bias, float* n, int64_t channels,
                                     float epsilon) {
  slmc::dispatched<layer_norm>(x, weight, bias, n, channels, epsilon);
}

SLMC_EXPORT void slmc_rms_norm_f32(const float* x, const float* weight, float* y, int64_t channels, float epsilon) {
  slmc::dispatched<rms_norm>(x, weight, y, channels, epsilon);
}

SLMC_EXPORT void slmc_shift_mix_f32(const float* x, const float* weight, const float* bias, const float* const* mixes,
                                    float* const* outs, int count, float* before, int64_t time, int64_t channels,
                                    float epsilon) {
  slmc::dispatched<mix_tokens>(x, weight, bias, mixes, outs, count, before, time, channels, epsilon);
}

SLMC_EXPORT void slmc_gated_wkv_f32(const float* w, const float* u, const float* key, const float* value,
                                    const float* receptance, float* a, float* b, float* m, float* y,
                                    const slmc::Recurrence& range) {
  slmc::dispatched<gated_wkv>(w, u, key, value, receptance, a, b, m, y, range);
}

SLMC_EXPORT void slmc_spike_add_f32(const float* residual, const float* current, const float* receptance, float* membrane,
                                    float* sum, const slmc::Lif& neurons, const slmc::Recurrence& range) {
  slmc::dispatched<add_spikes>(residual, current, receptance, membrane, sum, neurons, range);
}

SLMC_EXPORT void slmc_add_f32(const float* a, const float* b, int64_t step_b, float* y, int64_t count) {
  slmc::dispatched<add>(a, b, step_b, y, count);
}

SLMC_EXPORT void slmc_multiply_f32(const float* a, const float* b, int64_t step_b, float* y, int64_t count) {
  slmc::dispatched<multiply>(a, b, step_b, y, count);
}

SLMC_EXPORT void slmc_sigmoid_f32(const float* x, float* y, int64_t count) { slmc::dispatched<sigmoids>(x, y, count); }

SLMC_EXPORT void slmc_relu_f32(const float* x, float* y, int64_t count) { slmc::dispatched<relu>(x, y, count); }

SLMC_EXPORT void slmc_gelu_f32(const float* x, float* y, int64_t count) { slmc::dispatched<gelu>(x, y, count); }

SLMC_EXPORT void slmc_gelu_tanh_f32(const float* x, float* y, int64_t count) {
  slmc::dispatched<gelu_tanh>(x, y, count);
}

SLMC_EXPORT void slmc_squared_relu_f32(const float* x, float* y, int64_t count) {
  slmc::dispatched<squared_relu>(x, y, count);
}

}  // extern "C"
