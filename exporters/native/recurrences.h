// The recurrences as C functions (lif.cc, wkv.cc, spikes.cc): called by our operators and, through ctypes, by torch.
#pragma once
#include <cstdint>

extern "C" {

void slmc_lif_forward_f32(const float* drive, const float* membrane_in, float* spikes, float* membrane_out,
                          float* before_reset, int64_t batch, int64_t time, int64_t channels, float tau,
                          float threshold, float reset);

void slmc_wkv_forward_f32(const float* w, const float* u, const float* key, const float* value, const float* a_in,
                          const float* b_in, const float* m_in, float* out, float* a_out, float* b_out, float* m_out,
                          int64_t batch, int64_t time, int64_t channels);

void slmc_integrate_fire_f32(const float* drive, const float* threshold, const float* amplitude, float* spikes,
                             int64_t steps, int64_t count, int64_t first, int64_t last, float leak, float ternary,
                             float soft);

}  // extern "C"
