// Codes that stand for steps of a table: a byte shuffle looks up four codes of every lane at once.
//
// Steps are bytes, so a looked-up code is multiplied as a code of 8 bits is: signed where V multiplies signed bytes,
// else 128 larger, which the sum of the inputs takes off again. Included by one file per instruction set, with its V.
#pragma once
#include <type_traits>

#include "matrix.h"

namespace slmc {
namespace {

constexpr int kStepCentre = 128;  // of steps as unsigned bytes

// The table over and over: an index's bits above its code are its neighbours'.
struct Steps {
  alignas(64) uint8_t bytes[64];
  alignas(64) float values[16];

  Steps(const QMatrix& m, bool as_unsigned) {
    const int last = (1 << m.bits) - 1;
    for (int i = 0; i < 64; ++i) bytes[i] = static_cast<uint8_t>(m.steps[i & last] + (as_unsigned ? kStepCentre : 0));
    for (int i = 0; i < 16; ++i) values[i] = static_cast<float>(m.steps[i & last]);
  }
};

// Part j of a word: the steps of its codes as bytes. The codes' high bits begin at bit `first` of `more`.
template <typename V, int bits, int j, int first>
SLMC_INLINE typename V::I steps_of(const Steps& steps, typename V::I word, typename V::I more) {
  using L = Layout<V, bits>;
  typename V::I index = V::template right<L::low * j>(word);
  if constexpr (L::high > 0) {
    index = V::and_(index, V::set(static_cast<int32_t>(((1u << L::low) - 1) * 0x01010101u)));
    index = V::template add_high_rows<L::low, L::high, j, first>(index, more);
  }
  return V::template look_up<bits>(steps.bytes, index);
}

// A lane's codes of one word, as V::Words has them for even steps: multiply<p> adds x times the step of code p.
template <typename V, int bits>
struct ByteSteps {
  static constexpr int parts = Layout<V, bits>::parts;
  typename V::I part[parts];

  SLMC_INLINE void take(typename V::I low_words, typename V::I high_words, const Steps& steps) {
    unrolled<parts>([&](auto j) SLMC_LAMBDA {
      part[j.value] = steps_of<V, bits, j.value, 0>(steps, low_words, high_words);
    });
  }
  template <int p>
  SLMC_INLINE typename V::F multiply(typename V::F x, typename V::F sum) const {
    constexpr int up = 24 - 8 * (p / parts);
    return V::fma(V::to_float(V::template right_signed<24>(V::template left<up>(part[p % parts]))), x, sum);
  }
};

// The same where a register holds the table as floats.
template <typename V, int bits>
struct FloatSteps {
  typename V::template Words<bits> words;
  typename V::F values;

  SLMC_INLINE void take(typename V::I low_words, typename V::I high_words, const Steps& steps) {
    words.take(low_words, high_words);
    values = V::load(steps.values);
  }
  template <int p>
  SLMC_INLINE typename V::F multiply(typename V::F x, typename V::F sum) const {
    return V::fma(V::look_up(values, words.template index<p>()), x, sum);
  }
};

template <typename V, int bits>
using StepWords = std::conditional_t<V::kFloatTables, FloatSteps<V, bits>, ByteSteps<V, bits>>;

}  // namespace
}  // namespace slmc
