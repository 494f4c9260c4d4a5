// Elementary functions that compilers vectorise: branch-free, the same result on every instruction set.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

// Symbols are hidden but for these.
#define SLMC_EXPORT __attribute__((visibility("default")))
// Before a loop over channels: its rounds are independent, whatever the pointers look like.
#define SLMC_LANES _Pragma("GCC ivdep")
#define SLMC_INLINE inline __attribute__((always_inline))
#define SLMC_LAMBDA __attribute__((always_inline))
#define SLMC_COLD __attribute__((noinline))  // one copy, for what takes little of a product's time

namespace slmc {

// e^x for x <= 88, relative error below 2e-7; x below -87 gives 0.
// x = n ln2 + r, |r| <= ln2 / 2, e^r by a degree-6 polynomial (minimax coefficients after Cephes' expf).
SLMC_INLINE float exponential(float x) {
  const int32_t nonzero = x < -87.0f ? 0 : -1;  // a mask, so that no branch hinders vectorisation
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float n = (x * 1.44269504088896341f + magic) - magic;
  float r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t bits = ((static_cast<int32_t>(n) + 127) << 23) & nonzero;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}

SLMC_INLINE double exponential(double x) { return std::exp(x); }

template <typename T>
SLMC_INLINE T larger(T a, T b) { return a > b ? a : b; }

// What activations of 8 bits are multiplied with before they are rounded, by the largest magnitude of their block; 0
// where the quotient might be infinite.
SLMC_INLINE float steps_per_unit(float largest) { return largest > 1e-36f ? 127.0f / largest : 0.0f; }

// x [length] rounded to 127 steps of its largest; returns that.
inline float round_to_steps(const float* x, int64_t length, float* rounded) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer, ties to even
  float largest = 0;
  for (int64_t i = 0; i < length; ++i) largest = larger(std::fabs(x[i]), largest);
  const float step = largest / 127.0f, inverse = steps_per_unit(largest);
  for (int64_t i = 0; i < length; ++i) rounded[i] = ((x[i] * inverse + kMagic) - kMagic) * step;
  return largest;
}

}  // namespace slmc
