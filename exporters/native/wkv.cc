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
#include "clones.h"

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

// What reverse mode reads, and adds to: gradients of w and u; the initial states are constants.
template <typename T>
struct Reverse {
  const T *w, *u, *key, *value, *a_in, *b_in, *m_in, *grad_out;
  T *grad_w, *grad_u, *grad_key, *grad_value;
  T* scratch;  // [time, 3, channels]: outputs, dLoss/dy / denominator, maxima of exponents
  T* rows;     // [5, channels]
  int64_t time, channels;
};

// Forward quantities of text n once more, into `scratch`. dLoss/dw needs the forward derivatives of a and b with respect
// to w, which ride along.
template <typename T>
SLMC_INLINE void recompute(const Reverse<T>& in, int64_t n) {
  const int64_t channels = in.channels;
  const T *w = in.w, *u = in.u;
  T *grad_w = in.grad_w, *grad_u = in.grad_u;
  T *a = in.rows, *b = a + channels, *m = b + channels, *da = m + channels, *db = da + channels;
  SLMC_LANES
  for (int64_t c = 0; c < channels; ++c) {
    a[c] = in.a_in[n * channels + c];
    b[c] = in.b_in[n * channels + c];
    m[c] = in.m_in[n * channels + c];
    da[c] = db[c] = T(0);
  }
  for (int64_t t = 0; t < in.time; ++t) {
    const int64_t at = (n * in.time + t) * channels;
    const T *k = in.key + at, *v = in.value + at, *gy = in.grad_out + at;
    T *outs = in.scratch + 3 * t * channels, *shares = outs + channels, *tops = shares + channels;
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
}

// Gradients of text n's keys and values, from its end to its beginning.
template <typename T>
SLMC_INLINE void carry_back(const Reverse<T>& in, int64_t n) {
  const int64_t channels = in.channels;
  const T *w = in.w, *u = in.u;
  T *ga = in.rows, *gb = ga + channels, *o = gb + channels;  // gradients of a and -b, scaled by e^{o}
  SLMC_LANES
  for (int64_t c = 0; c < channels; ++c) {
    ga[c] = gb[c] = T(0);
    o[c] = T(-1e38);
  }
  for (int64_t t = in.time - 1; t >= 0; --t) {
    const int64_t at = (n * in.time + t) * channels;
    const T *k = in.key + at, *v = in.value + at;
    const T *outs = in.scratch + 3 * t * channels, *shares = outs + channels, *tops = shares + channels;
    T *grad_key = in.grad_key + at, *grad_value = in.grad_value + at;
    SLMC_LANES
    for (int64_t c = 0; c < channels; ++c) {
      const T now = shares[c] * exponential(u[c] + k[c] - tops[c]);
      const T later = exponential(k[c] + o[c]);
      grad_key[c] = now * (v[c] - outs[c]) + later * (ga[c] * v[c] + gb[c]);
      grad_value[c] = now + later * ga[c];
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

template <typename T>
SLMC_INLINE void backward(const T* w, const T* u, const T* key, const T* value, const T* a_in, const T* b_in,
                          const T* m_in, const T* grad_out, T* grad_w, T* grad_u, T* grad_key, T* grad_value,
                          T* scratch, T* rows, int64_t batch, int64_t time, int64_t channels) {
  const Reverse<T> in{w,      u,      key,      value,      a_in,    b_in, m_in, grad_out,
                      grad_w, grad_u, grad_key, grad_value, scratch, rows, time, channels};
  for (int64_t n = 0; n < batch; ++n) {
    recompute(in, n);
    carry_back(in, n);
  }
}

}  // namespace

extern "C" {

SLMC_EXPORT void slmc_wkv_forward_f32(const float* w, const float* u, const float* key, const float* value,
                                      const float* a_in, const float* b_in, const float* m_in, float* out,
                                      float* a_out, float* b_out, float* m_out, int64_t batch, int64_t time,
                                      int64_t channels) {
  slmc::dispatched<forward<float>>(w, u, key, value, a_in, b_in, m_in, out, a_out, b_out, m_out, batch, time, channels);
}

SLMC_EXPORT void slmc_wkv_forward_f64(const double* w, const double* u, const double* key, const double* value,
                                      const double* a_in, const double* b_in, const double* m_in, double* out,
                                      double* a_out, double* b_out, double* m_out, int64_t batch, int64_t time,
                                      int64_t channels) {
  slmc::dispatched<forward<double>>(w, u, key, value, a_in, b_in, m_in, out, a_out, b_out, m_out, batch, time,
                                    channels);
}

SLMC_EXPORT void slmc_wkv_backward_f32(const float* w, const float* u, const float* key, const float* value,
                                       const float* a_in, const float* b_in, const float* m_in,
                                       const float* grad_out, float* grad_w, float* grad_u, float* grad_key,
                                       float* grad_value, float* scratch, float* rows, int64_t batch, int64_t time,
                                       int64_t channels) {
  slmc::dispatched<backward<float>>(w, u, key, value, a_in, b_in, m_in, grad_out, grad_w, grad_u, grad_key, grad_value,
                                    scratch, rows, batch, time, channels);
}

SLMC_EXPORT void slmc_wkv_backward_f64(const double* w, const double* u, const double* key, const double* value,
                                       const double* a_in, const double* b_in, const double* m_in,
                                       const double* grad_out, double* grad_w, double* grad_u, double* grad_key,
                                       double* grad_value, double* scratch, double* rows, int64_t batch,
                                       int64_t time, int64_t channels) {
  slmc::dispatched<backward<double>>(w, u, key, value, a_in, b_in, m_in, grad_out, grad_w, grad_u, grad_key, grad_value,
                                     scratch, rows, batch, time, channels);
}

}  // extern "C"
