// Products of ternary matrices, five weights to a byte, with inputs of 8 bits that share one step per token.
//
// A matrix [N, K] lies in tiles of 16 rows, word after word of 4 bytes, each of all 16 rows: 64 bytes stand for 16 x 20
// weights. A byte is the fraction f / 256 whose five digits to base 3 are the codes, weights plus one:
//
//   digit i of byte b of word w is the weight of input 20 w + 4 i + b;   digit = [f >= 86] + [f >= 171], then f <- 3 f
//
// Missing rows and inputs have the code 1, the weight 0.
#pragma once
#include <cstdint>

namespace slmc {

constexpr int64_t kTernaryRows = 16, kTernaryInputs = 20, kTernaryBytes = 64;

// Sums of weight codes times integers: sums [tokens, N] for rows first .. last - 1, first a multiple of 16.
// x: [tokens, words * 20], the integers of one token one after the other.
struct TernaryPart {
  const uint8_t* codes;
  const int8_t* x;
  int32_t* sums;
  int64_t N, words, tokens, first, last;
};

void ternary_sums(const TernaryPart& part);

#if defined(__aarch64__)
void ternary_sums_neon_dot(const TernaryPart& part);  // on processors with dot products of bytes alone
#endif

}  // namespace slmc
