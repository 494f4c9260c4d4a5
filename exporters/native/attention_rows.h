// How caches of attention store a row: as float32, as float16, or as codes of 8 bits with a scale.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "attention_kernels.h"
#include "operator.h"

namespace slmc {
namespace {

constexpr float kSmallestScale = 1e-12f;  // SMALLEST_SCALE of ops/attention.py

// Rows of float32 as they are.
struct Exact {
  using Element = float;
  static constexpr ElementType kType = kFloat;
  static constexpr bool kScaled = false;
  static constexpr auto kKernel = &AttentionKernels::floats;

  static void store(const float* row, float* cache, float*, int64_t width) {
    std::copy(row, row + width, cache);
  }
};

// The nearest float16, ties to even; too large ones become infinite.
inline uint16_t float_to_half(float value) {
  constexpr float kLeastNormal = 0.5f;  // added to what is below 2^-14, it leaves units of 2^-24
  constexpr uint32_t kInfinite = 0x7f800000u, kBeyond = 0x477ff000u, kNormal = 0x38800000u;
  uint32_t bits, half;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
  if (size >= kBeyond) {
    half = size > kInfinite ? 0x7e00u : 0x7c00u;
  } else if (size < kNormal) {
    const float units = std::fabs(value) + kLeastNormal;
    std::memcpy(&half, &units, sizeof half);
    half -= 0x3f000000u;
  } else {
    half = (size - (112u << 23) + 0xfffu + (size >> 13 & 1u)) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

// Rows of float16.
struct Halves {
  using Element = uint16_t;
  static constexpr ElementType kType = kFloat16;
  static constexpr bool kScaled = false;
  static constexpr auto kKernel = &AttentionKernels::halves;

  static void store(const float* row, uint16_t* cache, float*, int64_t width) {
    for (int64_t i = 0; i < width; ++i) cache[i] = float_to_half(row[i]);
  }
};

// Rows of 8-bit codes, each row with a scale of its own.
struct Codes {
  using Element = int8_t;
  static constexpr ElementType kType = kInt8;
  static constexpr bool kScaled = true;
  static constexpr auto kKernel = &AttentionKernels::codes;
  static constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer, ties to even

  static void store(const float* row, int8_t* cache, float* scale, int64_t width) {
    float most = kSmallestScale;
    for (int64_t i = 0; i < width; ++i) most = larger(std::fabs(row[i]), most);
    *scale = most / 127.0f;
    for (int64_t i = 0; i < width; ++i) cache[i] = static_cast<int8_t>((row[i] / *scale + kMagic) - kMagic);
  }
};

// What the keys and values of one sequence live in, and the scales of codes.
template <typename Element>
struct Cache {
  Element* rows;
  float* scales;
};

}  // namespace
}  // namespace slmc
