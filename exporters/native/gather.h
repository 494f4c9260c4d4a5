// The activations that a mask keeps, eight at a time by a shuffle of bytes.
#pragma once
#include "sparse.h"

namespace slmc {

// Of every mask of eight inputs, the places that it keeps, in order; the rest are 0.
struct KeptPlaces {
  uint8_t of[256][16] = {};
  constexpr KeptPlaces() {
    for (int mask = 0; mask < 256; ++mask)
      for (int place = 0, next = 0; place < 8; ++place)
        if (mask >> place & 1) of[mask][next++] = static_cast<uint8_t>(place);
  }
};

namespace {

// Of 64 inputs; 16 bytes behind both the inputs and the last one kept are read or written.
template <typename V>
SLMC_INLINE typename V::I gather_by_shuffles(const int8_t* q, const uint8_t* masks, int64_t count, int8_t* out,
                                             typename V::I sum) {
  static constexpr KeptPlaces kept;
  int8_t* next = out;
  for (int i = 0; i < 8; ++i) {
    V::shuffle(q + 8 * i, kept.of[masks[i]], next);
    next += __builtin_popcount(masks[i]);
  }
  int64_t k = 0;
  for (; k + 4 * V::kLanes <= count; k += 4 * V::kLanes) sum = V::template dot<4>(sum, V::ones(), V::load(out + k));
  int8_t rest[4 * V::kLanes] = {};
  if (k == count) return sum;
  std::memcpy(rest, out + k, count - k);
  return V::template dot<4>(sum, V::ones(), V::load(rest));
}

}  // namespace
}  // namespace slmc
