// The weighted key-value average of RWKV-4 over a whole sequence, forward and backward, per channel:
//
//   y[t] = (sum_{s<t} e^{(t-1-s) w + k[s]} v[s] + e^{u + k[t]} v[t]) / (the same sum without v),    w < 0
//
// computed with numerator a, denominator b and running maximum m of the exponents, so that nothing overflows:
//
//   n = max(m, u + k);  y = (e^{m-n} a + e^{u+k-n} v) / (e^{m-n} b + e^{u+k-n})
//   n = max(m + w, k);  a = e^{m+w-n} a + e^{k-n} v;  b = e^{m+w-n} b + e^{k-n};  m = n
//
// Arrays are [batch, time, channel], row-major; w and u are [channel]; states are [batch, channel].
#include "elementary.h"

namespace {

using slmc::exponential;
using slmc::larger;

template <typename T>
SLMC_INLINE void forward(const T* w, const T* u, const T* key, const T* value, const T* a_in, const T* b_in,
                         const T* m_in, T* out, T* a_out, T* b_out, T* m_out, int64_t batch, int64_t time,
                         int64_t channels) {
  for (int64_t i = 0; i < batch * channels; ++i) {
    a_out[i] = a_in[i];
    b_out[i] = b_in[i];
    m_out[i] = m_in[i];
  }
  for (int64_t n = 0; n < batch; ++n) {
    T* a = a_out + n * channels;
    T* b = b_out + n * channels;
    T* m = m_out + n * channels;
    for (int64_t t = 0; t < time; ++t) {
      const T* k = key + (n * time + t) * channels;
      const T* v = value + (n * time + t) * channels;
      T* y = out + (n * time + t) * channels;
      SLMC_LANES
      for (int64_t c = 0; c < channels; ++c) {
        const T first = u[c] + k[c];
        const T top = larger(m[c], first);
        const T past = exponential(m[c] - top);
        const T now = exponential(first - top);
        y[c] = (past * a[c] + now * v[c]) / (past * b[c] + now);
        const T decayed = m[c] + w[c];
        const T next = larger(decayed, k[c]);
        const T keep = exponential(decayed - next);
        const T add = exponential(k[c] - next);
        a[c] = keep * a[c] + add * v[c];
        b[c] = keep * b[c] + add;
        m[c] = next;
      }
    }
  }
}

// Reverse mode. Forward quantities are recomputed per step (`scratch`: 3 * time * channels values);
// dLoss/dw needs the forward derivatives of a and b with respect to w, which ride along.
// Adds into grad_w and grad_u; the initial states are constants.
template <typename T>
SLMC_INLINE void backward(const T* w, const T* u, const T* key, const T* value, const T* a_in, const T* b_in,
                          const T* m_in, const T* grad_out, T* grad_w, T* grad_u, T* grad_key, T* grad_value,
                          T* scratch, T* rows, int64_t batch, int64_t time, int64_t channels) {
  T* a = rows;
  T* b = rows + channels;
  T* m = rows + 2 * channels;
  T* da = rows + 3 * channels;
  T* db = rows + 4 * channels;
  for (int64_t n = 0; n < batch; ++n) {
    SLMC_LANES
    for (int64_t c = 0; c < channels; ++c) {
      a[c] = a_in[n * channels + c];
      b[c] = b_in[n * channels + c];
      m[c] = m_in[n * channels + c];
      da[c] = db[c] = T(0);
    }
    for (int64_t t = 0; t < time; ++t) {
      const int64_t at = (n * time + t) * channels;
      const T* k = key + at;
      const T* v = value + at;
      const T* gy = grad_out + at;
      T* outs = scratch + (3 * t) * channels;
      T* shares = scratch + (3 * t + 1) * channels;  // dLoss/dy / denominator
      T* tops = scratch + (3 * t + 2) * channels;
      SLMC_LANES
      for (int64_t c = 0; c < channels; ++c) {
        const T first = u[c] + k[c];
        const T top = larger(m[c], first);
        const T past = exponential(m[c] - top);
        const T now = exponential(first - top);
        const T inverse = T(1) / (past * b[c] + now);
        const T y = (past * a[c] + now * v[c]) * inverse;
        const T share = gy[c] * inverse;
        outs[c] = y;
        shares[c] = share;
        tops[c] = top;
        grad_w[c] += share * (da[c] - y * db[c]) * past;
        grad_u[c] += share * (v[c] - y) * now;
        const T decayed = m[c] + w[c];
        const T next = larger(decayed, k[c]);
        const T keep = exponential(decayed - next);
        const T add = exponential(k[c] - next);
        da[c] = keep * (a[c] + da[c]);
        db[c] = keep * (b[c] + db[c]);
        a[c] = keep * a[c] + add * v[c];
        b[c] = keep * b[c] + add;
        m[c] = next;
      }
    }
    T* ga = a;  // gradients of a and -b, scaled by e^{o}
    T* gb = b;
    T* o = m;
    SLMC_LANES
    for (int64_t c = 0; c < channels; ++c) {
      ga[c] = gb[c] = T(0);
      o[c] = T(-1e38);
    }
    for (int64_t t = time - 1; t >= 0; --t) {
      const int64_t at = (n * time + t) * channels;
      const T* k = key + at;
      const T* v = value + at;
      const T* outs = scratch + (3 * t) * channels;
      const T* shares = scratch + (3 * t + 1) * channels;
      const T* tops = scratch + (3 * t + 2) * channels;
      SLMC_LANES
      for (int64_t c = 0; c < channels; ++c) {
        const T now = shares[c] * exponential(u[c] + k[c] - tops[c]);
        const T later = exponential(k[c] + o[c]);
        grad_key[at + c] = now * (v[c] - outs[c]) + later * (ga[c] * v[c] + gb[c]);
        grad_value[at + c] = now + later * ga[c];
        const T decayed = w[c] + o[c];
        const T next = larger(decayed, -tops[c]);
        const T keep = exponential(decayed - next);
        const T add = shares[c] * exponential(-tops[c] - next);
        ga[c] = keep * ga[c] + add;
        gb[c] = keep * gb[c] - add * outs[c];
        o[c] = next;
      }
    }
  }
}

}  // namespace

extern "C" {

SLMC_MULTIARCH void slmc_wkv_forward_f32(const float* w, const float* u, const float* key, const float* value,
                                         const float* a_in, const float* b_in, const float* m_in, float* out,
                                         float* a_out, float* b_out, float* m_out, int64_t batch, int64_t time,
                                         int64_t channels) {
  forward(w, u, key, value, a_in, b_in, m_in, out, a_out, b_out, m_out, batch, time, channels);
}

SLMC_MULTIARCH void slmc_wkv_forward_f64(const double* w, const double* u, const double* key, const double* value,
                                         const double* a_in, const double* b_in, const double* m_in, double* out,
                                         double* a_out, double* b_out, double* m_out, int64_t batch, int64_t time,
                                         int64_t channels) {
  forward(w, u, key, value, a_in, b_in, m_in, out, a_out, b_out, m_out, batch, time, channels);
}

SLMC_MULTIARCH void slmc_wkv_backward_f32(const float* w, const float* u, const float* key, const float* value,
                                          const float* a_in, const float* b_in, const float* m_in,
                                          const float* grad_out, float* grad_w, float* grad_u, float* grad_key,
                                          float* grad_value, float* scratch, float* rows, int64_t batch, int64_t time,
                                          int64_t channels) {
  backward(w, u, key, value, a_in, b_in, m_in, grad_out, grad_w, grad_u, grad_key, grad_value, scratch, rows, batch,
           time, channels);
}

SLMC_MULTIARCH void slmc_wkv_backward_f64(const double* w, const double* u, const double* key, const double* value,
                                          const double* a_in, const double* b_in, const double* m_in,
                                          const double* grad_out, double* grad_w, double* grad_u, double* grad_key,
                                          double* grad_value, double* scratch, double* rows, int64_t batch,
                                          int64_t time, int64_t channels) {
  backward(w, u, key, value, a_in, b_in, m_in, grad_out, grad_w, grad_u, grad_key, grad_value, scratch, rows, batch,
           time, channels);
}

}  // extern "C"
