// Weight matrices as stored, and the face of the kernels that multiply by them.
//
//   w[n, k] = scales[n, g] * (code[n, k] - zero[n, g]),   g = k / group,   zero = 2^(bits-1) where not given
//
// or, where the matrix has a table of steps, scales[n, g] * steps[code[n, k]].
//
// Codes lie along K, least significant bits first, in a low plane of 1, 2, 4 or 8 bits and, for 3, 5 and 6 bits, a high
// plane of the rest. Every group has its full number of codes, so a row is one run of `groups * group` codes.
//
// The first `tiled` rows lie in tiles of 16 (exporters/formats/tiles.py): word after word of 4 bytes, each of all 16
// rows, and likewise their scales and zeros group after group. The rows behind follow one after another.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "elementary.h"
#include "lanes.h"

namespace slmc {

constexpr int kTile = 16;  // rows whose words are interleaved

// Where the scale of row n's group g is, of matrices whose first `tiled` rows lie in tiles. Always inlined, here and
// below: files of several instruction sets include this one, and the linker keeps one copy.
SLMC_INLINE int64_t factor_at(int64_t n, int64_t g, int64_t groups, int64_t tiled) {
  return n < tiled ? (n / kTile * groups + g) * kTile + n % kTile : n * groups + g;
}

// Steps of a four-bit float's codes: e2m1 in halves.
constexpr int8_t kFloat4Steps[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Whether groups fill words of every plane: a multiple of 32 codes, or 16 of so many bits that none has half a word.
SLMC_INLINE constexpr bool fills_words(int64_t group, int bits) {
  return group % 32 == 0 || (group == 16 && (bits == 2 || bits == 4 || bits == 8));
}

struct QMatrix {
  const uint8_t* codes = nullptr;    // [N, groups, group * low / 8]
  const uint8_t* high = nullptr;     // [N, groups, group * high / 8], null where high = 0
  const uint16_t* scales = nullptr;  // float16 [N, groups]
  const uint8_t* zeros = nullptr;    // [N, groups], null where symmetric
  const int8_t* steps = nullptr;     // [2^bits], null where a code is a number of steps itself; bits 3 or 4
  int64_t N = 0, K = 0, groups = 0, group = 0;
  int64_t tiled = 0;  // rows, a multiple of kTile; where there are any, groups fill words
  int bits = 0;

  SLMC_INLINE int64_t padded() const { return groups * group; }
  SLMC_INLINE int64_t row_bytes() const { return padded() * low_bits(bits) / 8; }
  SLMC_INLINE int64_t high_row_bytes() const { return padded() * high_bits(bits) / 8; }
  SLMC_INLINE int centre() const { return 1 << (bits - 1); }
  // Where the scale and the zero of row n's group g are.
  SLMC_INLINE int64_t factor_at(int64_t n, int64_t g) const { return slmc::factor_at(n, g, groups, tiled); }
};

// The first `count` weights of row n as floats.
void decode_row(const QMatrix& m, int64_t n, int64_t count, float* row);

struct HalfMatrix {
  const uint16_t* w = nullptr;  // float16 [N, K]
  int64_t N = 0, K = 0;
};

// Memory for one call, handed out in pieces and kept by its thread for the next call.
class Arena {
 public:
  void reset() { used_ = 0; }
  template <typename T>
  SLMC_INLINE T* take(int64_t count) {
    return static_cast<T*>(bytes(static_cast<size_t>(count) * sizeof(T)));
  }
  ~Arena();

 private:
  void* bytes(size_t size);  // aligned to 64
  struct Block {
    Block* next;
    size_t size;
  };
  Block* newest_ = nullptr;
  size_t used_ = 0;
};

// `count` floats of this thread, until its next call.
float* thread_floats(int64_t count);

// x [tokens, K] made ready for one matrix; what the fields hold is each instruction set's own affair.
struct Prepared {
  enum Way { kPlain, kTiles32, kTiles8, kProduct32, kProduct8 } way = kPlain;
  int64_t tokens = 0;
  int64_t K = 0;
  const float* x = nullptr;             // [tokens, K] as given
  const float* padded = nullptr;        // floats, padded and ordered for the kernel
  const int8_t* quantised = nullptr;    // activations of 8 bits, padded and ordered for the kernel
  const int8_t* for_high = nullptr;     // the same in the order of the high plane
  const float* scales = nullptr;        // of the quantised activations
  const int32_t* start = nullptr;       // what an integer sum begins with: -centre * sum of activations
  const float* sums = nullptr;          // of activations per group, for zero points
  const struct Segment* segments = nullptr;
  int64_t segment_count = 0;
};

// A run of codes that share one weight scale and one activation scale.
struct Segment {
  int32_t first, length, group;
};

// 8-bit activations have one scale per this many inputs of a group.
constexpr int64_t kActivationGroup = 128;

struct LinearKernels {
  Prepared (*prepare)(const QMatrix&, const float* x, int64_t tokens, int activation_bits, Arena&);
  // Output features first .. last of all tokens; `first` is a multiple of kRowTile. Called from several threads.
  void (*multiply)(const QMatrix&, const Prepared&, float* y, int64_t first, int64_t last);
  void (*multiply_half)(const HalfMatrix&, const float* x, int64_t tokens, float* y, int64_t first, int64_t last);
};
constexpr int64_t kRowTile = 32;

SLMC_INLINE float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 31u, mantissa = half & 1023u;
  uint32_t bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000u | mantissa << 13;
  } else if (exponent) {
    bits = sign | (exponent + 112) << 23 | mantissa << 13;
  } else {  // subnormal: mantissa * 2^-24, exact in float32
    const float value = static_cast<float>(mantissa) * 5.9604644775390625e-8f;
    std::memcpy(&bits, &value, sizeof bits);
    bits |= sign;
  }
  float out;
  std::memcpy(&out, &bits, sizeof out);
  return out;
}

}  // namespace slmc
