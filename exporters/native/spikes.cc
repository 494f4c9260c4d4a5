// Integrate-and-fire over spike steps from membranes at rest, forward and backward.
//
//   u[s] = leak * v[s-1] + current[s]
//   z[s] = [u[s] >= threshold[s]], ternary less [u[s] <= -threshold[s]]
//   v[s] = u[s] where z[s] = 0, else 0 (hard) or u[s] - threshold[s] z[s] (soft)
//   y[s] = amplitude[s] z[s]
//
// Arrays are [steps, count], threshold and amplitude [steps]; neurons first .. last are computed.
#include <vector>

#include "clones.h"
#include "recurrences.h"

namespace {

constexpr int64_t kBlock = 256;  // neurons whose membranes stay in the first cache over all steps

struct Neurons {
  const float *threshold, *amplitude;
  int64_t steps, count;
  float leak, ternary, soft;
};

// `spikes` or `kept` may be null; kept [steps, kBlock] are the membranes u before a reset.
SLMC_INLINE void integrate(const Neurons& neurons, const float* current, float* spikes, float* kept, int64_t n) {
  float v[kBlock] = {};
  for (int64_t s = 0; s < neurons.steps; ++s) {
    const float theta = neurons.threshold[s], a = neurons.amplitude[s];
    const float* x = current + s * neurons.count;
    float* y = spikes ? spikes + s * neurons.count : nullptr;
    float* u_kept = kept ? kept + s * kBlock : nullptr;
    SLMC_LANES
    for (int64_t i = 0; i < n; ++i) {
      const float u = neurons.leak * v[i] + x[i];
      const float code = (u >= theta ? 1.0f : 0.0f) - (u <= -theta ? neurons.ternary : 0.0f);
      const float after = neurons.soft * (u - theta * code);
      v[i] = code != 0 ? after : u;
      if (y) y[i] = a * code;
      if (u_kept) u_kept[i] = u;
    }
  }
}

// Surrogate of a step at z: (alpha / 2) / (1 + (pi/2 * alpha * z)^2)   (ATan). Resets are constants to the gradient.
SLMC_INLINE void differentiate(const Neurons& neurons, const float* kept, const float* grad_spikes, float* grad_current,
                               float* grad_threshold, float* grad_amplitude, int64_t n, float alpha) {
  const float half_pi_alpha = 1.57079632679489661923f * alpha;
  float carried[kBlock] = {};  // dLoss / d v[s]
  for (int64_t s = neurons.steps - 1; s >= 0; --s) {
    const float theta = neurons.threshold[s], a = neurons.amplitude[s];
    const float* g = grad_spikes + s * neurons.count;
    const float* u_kept = kept + s * kBlock;
    float* out = grad_current + s * neurons.count;
    float of_threshold[kBlock], of_amplitude[kBlock];
    SLMC_LANES
    for (int64_t i = 0; i < n; ++i) {
      const float u = u_kept[i];
      const float code = (u >= theta ? 1.0f : 0.0f) - (u <= -theta ? neurons.ternary : 0.0f);
      const float above = half_pi_alpha * (u - theta), below = half_pi_alpha * (-theta - u);
      const float rising = alpha / 2 / (1.0f + above * above);
      const float falling = neurons.ternary * (alpha / 2) / (1.0f + below * below);
      const float through = code != 0 ? neurons.soft : 1.0f;
      const float grad_u = a * g[i] * (rising + falling) + carried[i] * through;
      of_threshold[i] = a * g[i] * (falling - rising) - neurons.soft * carried[i] * code;
      of_amplitude[i] = g[i] * code;
      out[i] = grad_u;
      carried[i] = neurons.leak * grad_u;
    }
    for (int64_t i = 0; i < n; ++i) grad_threshold[s] += of_threshold[i];
    for (int64_t i = 0; i < n; ++i) grad_amplitude[s] += of_amplitude[i];
  }
}

SLMC_INLINE void integrate_fire(const float* current, const float* threshold, const float* amplitude, float* spikes,
                                int64_t steps, int64_t count, int64_t first, int64_t last, float leak, float ternary,
                                float soft) {
  const Neurons neurons{threshold, amplitude, steps, count, leak, ternary, soft};
  for (int64_t at = first; at < last; at += kBlock)
    integrate(neurons, current + at, spikes + at, nullptr, last - at < kBlock ? last - at : kBlock);
}

SLMC_INLINE void integrate_fire_backward(const float* current, const float* threshold, const float* amplitude,
                                         const float* grad_spikes, float* grad_current, float* grad_threshold,
                                         float* grad_amplitude, int64_t steps, int64_t count, float leak, float ternary,
                                         float soft, float alpha) {
  const Neurons neurons{threshold, amplitude, steps, count, leak, ternary, soft};
  std::vector<float> kept(static_cast<size_t>(steps * kBlock));
  for (int64_t at = 0; at < count; at += kBlock) {
    const int64_t n = count - at < kBlock ? count - at : kBlock;
    integrate(neurons, current + at, nullptr, kept.data(), n);
    differentiate(neurons, kept.data(), grad_spikes + at, grad_current + at, grad_threshold, grad_amplitude, n, alpha);
  }
}

}  // namespace

extern "C" {

SLMC_EXPORT void slmc_integrate_fire_f32(const float* current, const float* threshold, const float* amplitude,
                                         float* spikes, int64_t steps, int64_t count, int64_t first, int64_t last,
                                         float leak, float ternary, float soft) {
  slmc::dispatched<integrate_fire>(current, threshold, amplitude, spikes, steps, count, first, last, leak, ternary, soft);
}

SLMC_EXPORT void slmc_integrate_fire_backward_f32(const float* current, const float* threshold, const float* amplitude,
                                                  const float* grad_spikes, float* grad_current, float* grad_threshold,
                                                  float* grad_amplitude, int64_t steps, int64_t count, float leak,
                                                  float ternary, float soft, float alpha) {
  slmc::dispatched<integrate_fire_backward>(current, threshold, amplitude, grad_spikes, grad_current, grad_threshold,
                                            grad_amplitude, steps, count, leak, ternary, soft, alpha);
}

}  // extern "C"
