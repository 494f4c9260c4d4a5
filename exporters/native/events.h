// Input-major weights, and the face of the kernels that skip the inputs that are zero.
//
//   w[n, k] = scales[g, n] * (code[k, n] - zero[g, n]),   g = k / group,   zero = 2^(bits-1) where not given
//
// A row holds the codes of all outputs for one input, in words of 32 bits of the low plane. Sixteen words are a block of
// 16 * 32 / low outputs: place p of word i is output 16 p + i, so that a vector of words unpacks to outputs that follow
// one another. The last block has a multiple of four words, fewer where N ends: output (words) p + i.
// The high plane has the remaining bits of the same codes in the same order.
#pragma once
#include "matrix.h"

namespace slmc {

constexpr int64_t kBlockWords = 16;

struct EventMatrix {
  const uint8_t* codes = nullptr;    // [K, words * 4]
  const uint8_t* high = nullptr;     // [K, words * 4 * high / low], null where high = 0
  const uint16_t* scales = nullptr;  // float16 [groups, N]
  const uint8_t* zeros = nullptr;    // [groups, N], null where symmetric
  int64_t N = 0, K = 0, groups = 0, group = 0;
  int bits = 0;

  SLMC_INLINE int64_t per_word() const { return 32 / low_bits(bits); }
  SLMC_INLINE int64_t words() const { return (N + 4 * per_word() - 1) / (4 * per_word()) * 4; }
  SLMC_INLINE int64_t row_bytes() const { return words() * 4; }
  SLMC_INLINE int64_t high_row_bytes() const { return words() * 4 * high_bits(bits) / low_bits(bits); }
  SLMC_INLINE int centre() const { return 1 << (bits - 1); }
};

// The inputs of one token that are not zero.
struct Events {
  const float* x = nullptr;        // [K]
  const int32_t* index = nullptr;  // [count], ascending
  const int32_t* first = nullptr;  // [groups + 1]: where a group's begin in `index`
  const float* sums = nullptr;     // [groups] of x, null where symmetric
  float spike = 0;                 // what all of them are, if they are all the same, else 0

  SLMC_INLINE int64_t count(int64_t groups) const { return first[groups]; }
};

constexpr int64_t kListRoom = 16;  // places behind a list that may be written

struct EventKernels {
  // One token's outputs of the words first .. last; `first` is a multiple of kBlockWords. Called from several threads.
  void (*multiply)(const EventMatrix&, const Events&, float* y, int64_t first, int64_t last);
  // All outputs of many tokens x [tokens, K], most of whose inputs are not zero; words as above.
  void (*product)(const EventMatrix&, const float* x, int64_t tokens, float* y, int64_t first, int64_t last);
  // As list_inputs.
  int32_t (*list)(const float* x, int64_t from, int64_t to, Signs signs, int32_t* index);
};

}  // namespace slmc
