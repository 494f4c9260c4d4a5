// y = x W^T in plain C++: the row is decoded once, then multiplied with every token.
//
// 8-bit activations are rounded to their grid and kept as floats, which gives the same products:
//   x ~ scale * q,   scale = max |x| / 127 over min(group, 128) inputs,   q = round to nearest even (x / scale).
// Serves every processor, and the groups that the vector kernels do not take.
#include <cmath>

#include "elementary.h"
#include "kernels.h"

namespace slmc::portable {
namespace {

void round_to_grid(float* x, int64_t length) {
  float largest = 0;
  for (int64_t k = 0; k < length; ++k) largest = larger(largest, std::fabs(x[k]));
  const float scale = largest / 127.0f;
  const float inverse = steps_per_unit(largest);
  for (int64_t k = 0; k < length; ++k) x[k] = std::nearbyint(x[k] * inverse) * scale;
}

Prepared prepare(const QMatrix& m, const float* x, int64_t tokens, int activation_bits, Arena& arena) {
  Prepared p;
  p.tokens = tokens;
  p.K = m.K;
  float* padded = arena.take<float>(tokens * m.padded());
  for (int64_t t = 0; t < tokens; ++t) {
    float* row = padded + t * m.padded();
    std::memcpy(row, x + t * m.K, m.K * sizeof(float));
    std::memset(row + m.K, 0, (m.padded() - m.K) * sizeof(float));
    if (activation_bits == 32) continue;
    for (int64_t g = 0; g < m.groups; ++g)
      for (int64_t k = 0; k < m.group; k += kActivationGroup)
        round_to_grid(row + g * m.group + k, k + kActivationGroup < m.group ? kActivationGroup : m.group - k);
  }
  p.padded = padded;
  return p;
}

// Sixteen partial sums, so that compilers vectorise without reordering a sum themselves.
SLMC_INLINE float dot(const float* a, const float* b, int64_t length) {
  float sums[16] = {};
  int64_t k = 0;
  for (; k + 16 <= length; k += 16)
    for (int i = 0; i < 16; ++i) sums[i] += a[k + i] * b[k + i];
  float total = 0;
  for (; k < length; ++k) total += a[k] * b[k];
  for (const float sum : sums) total += sum;
  return total;
}

void multiply(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last) {
  float* row = thread_floats(m.padded());
  for (int64_t n = first; n < last; ++n) {
    decode_row(m, n, m.padded(), row);
    for (int64_t t = 0; t < p.tokens; ++t) y[t * m.N + n] = dot(row, p.padded + t * m.padded(), m.padded());
  }
}

void multiply_half(const HalfMatrix& m, const float* x, int64_t tokens, float* y, int64_t first, int64_t last) {
  float* row = thread_floats(m.K);
  for (int64_t n = first; n < last; ++n) {
    for (int64_t k = 0; k < m.K; ++k) row[k] = half_to_float(m.w[n * m.K + k]);
    for (int64_t t = 0; t < tokens; ++t) y[t * m.N + n] = dot(row, x + t * m.K, m.K);
  }
}

}  // namespace

const LinearKernels linear = {prepare, multiply, multiply_half};

}  // namespace slmc::portable
