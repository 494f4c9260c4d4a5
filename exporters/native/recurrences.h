// The recurrences as C functions (lif.cc, wkv.cc, spikes.cc, neurons.cc, matrix_states.cc): called by our operators and,
// through ctypes, by torch.
#pragma once
#include <cstdint>

namespace slmc {

// What every channel has of its own: one value, or one for every step.
template <typename T>
struct ChannelParameter {
  const T* values;
  bool of_every_step;
};

// What all neurons of a layer have in common.
template <typename T>
struct PlifLaw {
  T low, high, reset;
  bool soft, membranes;  // membranes: they are given in the place of spikes
};

}  // namespace slmc

extern "C" {

void slmc_lif_forward_f32(const float* current, const float* membrane_in, float* spikes, float* membrane_out,
                          float* before_reset, int64_t batch, int64_t time, int64_t channels, float tau,
                          float threshold, float reset);

void slmc_wkv_forward_f32(const float* w, const float* u, const float* key, const float* value, const float* a_in,
                          const float* b_in, const float* m_in, float* out, float* a_out, float* b_out, float* m_out,
                          int64_t batch, int64_t time, int64_t channels);

void slmc_integrate_fire_f32(const float* current, const float* threshold, const float* amplitude, float* spikes,
                             int64_t steps, int64_t count, int64_t first, int64_t last, float leak, float ternary,
                             float soft);

// each: bits 0 to 3 say which of decay, gain, threshold and drop have a value for every step.
void slmc_plif_f32(const float* current, const float* decay, const float* gain, const float* threshold,
                   const float* drop, const float* membrane_in, float* y, float* membrane_out, int64_t batch,
                   int64_t time, int64_t channels, int64_t each, float low, float high, float reset, float soft,
                   float membranes);

// each: whether decay has a value for every step.
void slmc_linear_recurrence_f32(const float* decay, const float* current, const float* state_in, float* y,
                                float* state_out, int64_t batch, int64_t time, int64_t channels, int64_t each);

// Heads of queries share states; all are `width` wide.
void slmc_delta_rule_f32(const float* query, const float* decay, const float* key, const float* value,
                         const float* removed, const float* rate, const float* state_in, float* y, float* state_out,
                         int64_t batch, int64_t time, int64_t heads, int64_t states, int64_t width);

}  // extern "C"
