// Recurrences whose state is a matrix S [width, width] per head: gated linear attention and RWKV-7's delta rule.
//
//   S[t] = S[t-1] diag(decay[t]) + (S[t-1] removed[t]) rate[t]^T + value[t] key[t]^T
//   y[t] = S[t] query[t]
//
// Rows of S belong to values, columns to keys. query is [batch, time, heads * width], all others [batch, time, states *
// width]; heads / states heads in a row read one state. States are [batch, states, width, width].
#include "clones.h"
#include "recurrences.h"

namespace {

template <typename T>
SLMC_INLINE void delta_rule(const T* query, const T* decay, const T* key, const T* value, const T* removed,
                            const T* rate, const T* state_in, T* y, T* state_out, int64_t batch, int64_t time,
                            int64_t heads, int64_t states, int64_t width) {
  const int64_t shared = heads / states, matrix = width * width;
  for (int64_t at = 0; at < batch * states; ++at) {
    const int64_t b = at / states, own = at % states;
    T* S = state_out + at * matrix;
    for (int64_t i = 0; i < matrix; ++i) S[i] = state_in[at * matrix + i];
    for (int64_t row = b * time; row < (b + 1) * time; ++row) {
      const int64_t place = (row * states + own) * width;
      const T *w = decay + place, *k = key + place, *v = value + place, *a = removed + place, *r = rate + place;
      for (int64_t i = 0; i < width; ++i) {
        T* s = S + i * width;
        const T gone = slmc::lane_dot(s, a, width), in = v[i];
        SLMC_LANES
        for (int64_t j = 0; j < width; ++j) s[j] = s[j] * w[j] + gone * r[j] + in * k[j];
        for (int64_t h = 0; h < shared; ++h) {
          const int64_t head = (row * heads + own * shared + h) * width;
          y[head + i] = slmc::lane_dot(s, query + head, width);
        }
      }
    }
  }
}

}  // namespace

extern "C" {

SLMC_EXPORT void slmc_delta_rule_f32(const float* query, const float* decay, const float* key, const float* value,
                                     const float* removed, const float* rate, const float* state_in, float* y,
                                     float* state_out, int64_t batch, int64_t time, int64_t heads, int64_t states,
                                     int64_t width) {
  slmc::dispatched<delta_rule<float>>(query, decay, key, value, removed, rate, state_in, y, state_out, batch, time,
                                      heads, states, width);
}

SLMC_EXPORT void slmc_delta_rule_f64(const double* query, const double* decay, const double* key, const double* value,
                                     const double* removed, const double* rate, const double* state_in, double* y,
                                     double* state_out, int64_t batch, int64_t time, int64_t heads, int64_t states,
                                     int64_t width) {
  slmc::dispatched<delta_rule<double>>(query, decay, key, value, removed, rate, state_in, y, state_out, batch, time,
                                       heads, states, width);
}

}  // extern "C"
