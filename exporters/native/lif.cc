// Leaky integrate-and-fire over a whole sequence, forward and backward (SpikingJelly's MultiStepLIFNode).
//
//   u[t] = v[t-1] + (current[t] - (v[t-1] - reset)) / tau
//   s[t] = 1 if u[t] >= threshold else 0
//   v[t] = reset if s[t] else u[t]                                  (hard reset)
//
// Arrays are [batch, time, channel], row-major; membranes are [batch, channel].
#include "clones.h"

namespace {

template <typename T>
SLMC_INLINE void forward(const T* current, const T* membrane_in, T* spikes, T* membrane_out, T* before_reset,
                         int64_t batch, int64_t time, int64_t channels, T tau, T threshold, T reset) {
  for (int64_t b = 0; b < batch; ++b) {
    T* v = membrane_out + b * channels;
    for (int64_t c = 0; c < channels; ++c) v[c] = membrane_in[b * channels + c];
    for (int64_t t = 0; t < time; ++t) {
      const int64_t at = (b * time + t) * channels;
      const T* x = current + at;
      T* s = spikes + at;
      T* u_kept = before_reset ? before_reset + at : nullptr;
      SLMC_LANES
      for (int64_t c = 0; c < channels; ++c) {
        const T u = v[c] + (x[c] - (v[c] - reset)) / tau;
        const bool fires = u >= threshold;
        s[c] = fires ? T(1) : T(0);
        v[c] = fires ? reset : u;
        if (u_kept) u_kept[c] = u;
      }
    }
  }
}

// Surrogate of the step: d s / d u = (alpha / 2) / (1 + (pi/2 * alpha * (u - threshold))^2)   (ATan).
template <typename T>
SLMC_INLINE void backward(const T* before_reset, const T* grad_spikes, T* carried, T* grad_current, int64_t batch,
                          int64_t time, int64_t channels, T tau, T threshold, T reset, T alpha) {
  const T half_pi_alpha = T(1.57079632679489661923) * alpha;
  for (int64_t b = 0; b < batch; ++b) {
    T* g = carried + b * channels;  // dLoss / d v[t]; on return dLoss / d v[-1]
    for (int64_t t = time - 1; t >= 0; --t) {
      const int64_t at = (b * time + t) * channels;
      SLMC_LANES
      for (int64_t c = 0; c < channels; ++c) {
        const T u = before_reset[at + c];
        const bool fires = u >= threshold;
        const T z = half_pi_alpha * (u - threshold);
        const T slope = alpha / T(2) / (T(1) + z * z);
        const T through_reset = fires ? T(0) : T(1);
        const T grad_u = grad_spikes[at + c] * slope + g[c] * (through_reset + (reset - u) * slope);
        grad_current[at + c] = grad_u / tau;
        g[c] = grad_u * (T(1) - T(1) / tau);
      }
    }
  }
}

}  // namespace

extern "C" {

SLMC_EXPORT void slmc_lif_forward_f32(const float* current, const float* membrane_in, float* spikes,
                                      float* membrane_out, float* before_reset, int64_t batch, int64_t time,
                                      int64_t channels, float tau, float threshold, float reset) {
  slmc::dispatched<forward<float>>(current, membrane_in, spikes, membrane_out, before_reset, batch, time, channels, tau,
                                   threshold, reset);
}

SLMC_EXPORT void slmc_lif_forward_f64(const double* current, const double* membrane_in, double* spikes,
                                      double* membrane_out, double* before_reset, int64_t batch, int64_t time,
                                      int64_t channels, double tau, double threshold, double reset) {
  slmc::dispatched<forward<double>>(current, membrane_in, spikes, membrane_out, before_reset, batch, time, channels, tau,
                                    threshold, reset);
}

SLMC_EXPORT void slmc_lif_backward_f32(const float* before_reset, const float* grad_spikes, float* carried,
                                       float* grad_current, int64_t batch, int64_t time, int64_t channels, float tau,
                                       float threshold, float reset, float alpha) {
  slmc::dispatched<backward<float>>(before_reset, grad_spikes, carried, grad_current, batch, time, channels, tau,
                                    threshold, reset, alpha);
}

SLMC_EXPORT void slmc_lif_backward_f64(const double* before_reset, const double* grad_spikes, double* carried,
                                       double* grad_current, int64_t batch, int64_t time, int64_t channels,
                                       double tau, double threshold, double reset, double alpha) {
  slmc::dispatched<backward<double>>(before_reset, grad_spikes, carried, grad_current, batch, time, channels, tau,
                                     threshold, reset, alpha);
}

}  // extern "C"
