// What stands between the products of a model, several elementwise steps in one pass, as C functions (fusions.cc).
//
// Arrays are [time, channel], row-major, of one text; states are [channel]. A call may serve a part of the work:
// tokens one after the other (shift_mix), or channels first .. last (the recurrences, whose states stay in place).
#pragma once
#include <cstdint>

namespace slmc {

constexpr int kMostMixes = 3;

struct Recurrence {
  int64_t time;
  int64_t channels;
  int64_t first, last;
};

struct Lif {
  float tau, threshold, reset;
};

}  // namespace slmc

extern "C" {

// n = (x - mean) / sqrt(variance + epsilon) * weight + bias over the channels.
void slmc_layer_norm_f32(const float* x, const float* weight, const float* bias, float* n, int64_t channels,
                         float epsilon);

// y = x / sqrt(mean x^2 + epsilon) * weight over the channels.
void slmc_rms_norm_f32(const float* x, const float* weight, float* y, int64_t channels, float epsilon);

// out_i[t] = n[t-1] + (n[t] - n[t-1]) * mix_i with n = layer norm of x; `before` holds n[-1], then n[time-1].
void slmc_shift_mix_f32(const float* x, const float* weight, const float* bias, const float* const* mixes,
                        float* const* outs, int count, float* before, int64_t time, int64_t channels, float epsilon);

// y = sigmoid(receptance) * wkv(key, value), with the equation and the states a, b, m of wkv.cc.
void slmc_gated_wkv_f32(const float* w, const float* u, const float* key, const float* value, const float* receptance,
                        float* a, float* b, float* m, float* y, const slmc::Recurrence& range);

// sum = residual + spikes of the neurons of lif.cc that current * sigmoid(receptance) drives; no gate without one.
void slmc_spike_add_f32(const float* residual, const float* current, const float* receptance, float* membrane,
                        float* sum, const slmc::Lif& neurons, const slmc::Recurrence& range);

// y = a + b or a * b; step_b: 1, or 0 where b is one number.
void slmc_add_f32(const float* a, const float* b, int64_t step_b, float* y, int64_t count);
void slmc_multiply_f32(const float* a, const float* b, int64_t step_b, float* y, int64_t count);

// y = 1 / (1 + e^-x), max(x, 0), x (1 + erf(x / sqrt 2)) / 2 and its approximation by tanh.
void slmc_sigmoid_f32(const float* x, float* y, int64_t count);
void slmc_relu_f32(const float* x, float* y, int64_t count);
void slmc_gelu_f32(const float* x, float* y, int64_t count);
void slmc_gelu_tanh_f32(const float* x, float* y, int64_t count);

// y = max(x, 0)^2
void slmc_squared_relu_f32(const float* x, float* y, int64_t count);

}  // extern "C"
