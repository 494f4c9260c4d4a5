// Recurrences of single channels over a whole sequence: neurons with parameters of their own, and linear ones.
//
//   Plif              u[t] = clip(decay v[t-1] + gain current[t], low, high),    s[t] = [u[t] >= threshold]
//                     v[t] = soft: u[t] - drop s[t],    hard: reset where s[t] = 1, else u[t]
//   LinearRecurrence  y[t] = decay y[t-1] + current[t]
//
// Arrays are [batch, time, channel], row-major; membranes and states [batch, channel]. A parameter is [channel], or has a
// value for every step, [batch, time, channel].
#include "clones.h"
#include "recurrences.h"

namespace {

using slmc::ChannelParameter;
using slmc::PlifLaw;

// The row of a parameter for step `row` of all.
template <typename T>
SLMC_INLINE const T* row_of(const ChannelParameter<T>& parameter, int64_t row, int64_t channels) {
  return parameter.values + (parameter.of_every_step ? row * channels : 0);
}

template <typename T>
SLMC_INLINE void plif(const T* current, ChannelParameter<T> decay, ChannelParameter<T> gain,
                      ChannelParameter<T> threshold, ChannelParameter<T> drop, const T* membrane_in, T* y,
                      T* membrane_out, int64_t batch, int64_t time, int64_t channels, PlifLaw<T> law) {
  for (int64_t b = 0; b < batch; ++b) {
    T* v = membrane_out + b * channels;
    for (int64_t c = 0; c < channels; ++c) v[c] = membrane_in[b * channels + c];
    for (int64_t row = b * time; row < (b + 1) * time; ++row) {
      const T *x = current + row * channels, *kept = row_of(decay, row, channels), *scaled = row_of(gain, row, channels);
      const T *theta = row_of(threshold, row, channels), *taken = row_of(drop, row, channels);
      T* out = y + row * channels;
      SLMC_LANES
      for (int64_t c = 0; c < channels; ++c) {
        T u = kept[c] * v[c] + scaled[c] * x[c];
        u = u < law.low ? law.low : u;
        u = u > law.high ? law.high : u;
        const bool fires = u >= theta[c];
        const T after = law.soft ? u - taken[c] : law.reset;
        v[c] = fires ? after : u;
        out[c] = law.membranes ? v[c] : fires ? T(1) : T(0);
      }
    }
  }
}

template <typename T>
SLMC_INLINE void linear_recurrence(ChannelParameter<T> decay, const T* current, const T* state_in, T* y, T* state_out,
                                   int64_t batch, int64_t time, int64_t channels) {
  for (int64_t b = 0; b < batch; ++b) {
    T* state = state_out + b * channels;
    for (int64_t c = 0; c < channels; ++c) state[c] = state_in[b * channels + c];
    for (int64_t row = b * time; row < (b + 1) * time; ++row) {
      const T *x = current + row * channels, *kept = row_of(decay, row, channels);
      T* out = y + row * channels;
      SLMC_LANES
      for (int64_t c = 0; c < channels; ++c) out[c] = state[c] = kept[c] * state[c] + x[c];
    }
  }
}

template <typename T>
void run_plif(const T* current, const T* decay, const T* gain, const T* threshold, const T* drop, const T* membrane_in,
              T* y, T* membrane_out, int64_t batch, int64_t time, int64_t channels, int64_t each, T low, T high,
              T reset, T soft, T membranes) {
  const PlifLaw<T> law{low, high, reset, soft != 0, membranes != 0};
  const ChannelParameter<T> kept{decay, (each & 1) != 0}, scaled{gain, (each & 2) != 0};
  const ChannelParameter<T> theta{threshold, (each & 4) != 0}, taken{drop, (each & 8) != 0};
  slmc::dispatched<plif<T>>(current, kept, scaled, theta, taken, membrane_in, y, membrane_out, batch, time, channels,
                            law);
}

}  // namespace

extern "C" {

SLMC_EXPORT void slmc_plif_f32(const float* current, const float* decay, const float* gain, const float* threshold,
                               const float* drop, const float* membrane_in, float* y, float* membrane_out,
                               int64_t batch, int64_t time, int64_t channels, int64_t each, float low, float high,
                               float reset, float soft, float membranes) {
  run_plif(current, decay, gain, threshold, drop, membrane_in, y, membrane_out, batch, time, channels, each, low, high,
           reset, soft, membranes);
}

SLMC_EXPORT void slmc_plif_f64(const double* current, const double* decay, const double* gain, const double* threshold,
                               const double* drop, const double* membrane_in, double* y, double* membrane_out,
                               int64_t batch, int64_t time, int64_t channels, int64_t each, double low, double high,
                               double reset, double soft, double membranes) {
  run_plif(current, decay, gain, threshold, drop, membrane_in, y, membrane_out, batch, time, channels, each, low, high,
           reset, soft, membranes);
}

SLMC_EXPORT void slmc_linear_recurrence_f32(const float* decay, const float* current, const float* state_in, float* y,
                                            float* state_out, int64_t batch, int64_t time, int64_t channels,
                                            int64_t each) {
  const ChannelParameter<float> kept{decay, each != 0};
  slmc::dispatched<linear_recurrence<float>>(kept, current, state_in, y, state_out, batch, time, channels);
}

SLMC_EXPORT void slmc_linear_recurrence_f64(const double* decay, const double* current, const double* state_in,
                                            double* y, double* state_out, int64_t batch, int64_t time,
                                            int64_t channels, int64_t each) {
  const ChannelParameter<double> kept{decay, each != 0};
  slmc::dispatched<linear_recurrence<double>>(kept, current, state_in, y, state_out, batch, time, channels);
}

}  // extern "C"
