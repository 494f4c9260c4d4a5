// What vector types of all instruction sets build on; it knows no kernel, so that a type can be tested alone.
#pragma once
#include <cstdint>
#include <cstring>

#include "elementary.h"

namespace slmc {

// Codes of 3, 5 and 6 bits lie in two planes; always inlined, for files of several instruction sets include this.
SLMC_INLINE constexpr int low_bits(int bits) { return bits == 3 ? 2 : bits == 5 || bits == 6 ? 4 : bits; }
SLMC_INLINE constexpr int high_bits(int bits) { return bits - low_bits(bits); }

enum Signs { kAnySign, kPositive, kNegative };

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

template <int I>
struct Index {
  static constexpr int value = I;
};

// body(Index<0>) .. body(Index<N - 1>), so that shifts are immediates.
template <int N, int I = 0, typename Body>
SLMC_INLINE void unrolled(const Body& body) {
  if constexpr (I < N) {
    body(Index<I>{});
    unrolled<N, I + 1>(body);
  }
}

// A vector of words of the low plane, one word to a lane.
template <typename V, int bits>
struct Layout {
  static constexpr int low = low_bits(bits), high = high_bits(bits);
  static constexpr int per_lane = 32 / low;        // codes
  static constexpr int parts = 8 / low;            // vectors of bytes that it unpacks to
  static constexpr int low_bytes = 4 * V::kLanes;
  static constexpr int high_bytes = low_bytes * high / low;
};

// Where every lane is a row and its high bits begin at bit `first`: adds those of part j's four codes to their bytes.
template <typename V, int low, int high, int part, int first>
SLMC_INLINE typename V::I add_high_by_shifts(typename V::I bytes, typename V::I words) {
  unrolled<4>([&](auto byte) {
    constexpr int from = first + high * (byte.value * (8 / low) + part), to = 8 * byte.value + low;
    const typename V::I mask = V::set(static_cast<int32_t>(((1u << high) - 1) << to));
    const typename V::I lowered = V::template right<(from > to ? from - to : 0)>(words);
    const typename V::I moved = V::template left<(to > from ? to - from : 0)>(lowered);
    bytes = V::or_(bytes, V::and_(moved, mask));
  });
  return bytes;
}

// The activations of 64 that a mask keeps, eight at a time by a shuffle of bytes; 16 bytes behind both the inputs and
// the last one kept are read or written. Returns sum + their sums by lane.
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

// Lists the inputs from .. to that are not zero, of these signs; returns how many. Here without branches, which noise
// would mislead.
inline int32_t list_inputs(const float* x, int64_t from, int64_t to, Signs signs, int32_t* index) {
  const auto list = [&](const auto& keep) {
    int32_t count = 0;
    for (int64_t k = from; k < to; ++k) {
      index[count] = static_cast<int32_t>(k);
      count += keep(x[k]);
    }
    return count;
  };
  if (signs == kPositive) return list([](float value) { return value > 0; });
  if (signs == kNegative) return list([](float value) { return value < 0; });
  return list([](float value) { return value != 0; });
}

}  // namespace
}  // namespace slmc
