// Input-major products in plain C++: the row of an input is decoded once, then added to every token that has it.
#include "kernels.h"

namespace slmc::portable {
namespace {

// The weights of input k for the words first .. last, as floats in the order of outputs.
void decode_input(const EventMatrix& m, int64_t k, int64_t first, int64_t last, float* row) {
  const int low = low_bits(m.bits), high = high_bits(m.bits);
  const int64_t places = m.per_word(), from = first * places;
  const uint8_t* codes = m.codes + k * m.row_bytes();
  const uint8_t* more = m.high + k * m.high_row_bytes();
  for (int64_t block = first; block < last; block += kBlockWords) {
    const int64_t words = last - block < kBlockWords ? last - block : kBlockWords;
    for (int64_t word = 0; word < words; ++word)
      for (int64_t place = 0; place < places; ++place) {
        const int64_t at = (block + word) * places + place;
        int code = codes[at * low / 8] >> (at * low % 8) & ((1 << low) - 1);
        if (high) code |= (more[at * high / 8] >> (at * high % 8) & ((1 << high) - 1)) << low;
        row[block * places - from + place * words + word] = static_cast<float>(code);
      }
  }
  const int64_t to = last * places < m.N ? last * places : m.N, group = k / m.group * m.N;
  for (int64_t n = from; n < to; ++n) {
    const int zero = m.zeros ? m.zeros[group + n] : m.centre();
    row[n - from] = (row[n - from] - static_cast<float>(zero)) * half_to_float(m.scales[group + n]);
  }
}

void product(const EventMatrix& m, const float* x, int64_t tokens, float* y, int64_t first, int64_t last) {
  const int64_t from = first * m.per_word(), to = last * m.per_word() < m.N ? last * m.per_word() : m.N;
  float* row = thread_floats((last - first) * m.per_word());
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t n = from; n < to; ++n) y[t * m.N + n] = 0;
  for (int64_t k = 0; k < m.K; ++k) {
    decode_input(m, k, first, last, row);
    for (int64_t t = 0; t < tokens; ++t) {
      const float factor = x[t * m.K + k];
      if (factor == 0) continue;
      for (int64_t n = from; n < to; ++n) y[t * m.N + n] += factor * row[n - from];
    }
  }
}

void multiply(const EventMatrix& m, const Events& e, float* y, int64_t first, int64_t last) {
  const int64_t from = first * m.per_word(), to = last * m.per_word() < m.N ? last * m.per_word() : m.N;
  float* row = thread_floats((last - first) * m.per_word());
  for (int64_t n = from; n < to; ++n) y[n] = 0;
  for (int32_t i = 0; i < e.first[m.groups]; ++i) {
    decode_input(m, e.index[i], first, last, row);
    const float factor = e.x[e.index[i]];
    for (int64_t n = from; n < to; ++n) y[n] += factor * row[n - from];
  }
}

}  // namespace

const EventKernels events = {multiply, product, list_inputs};

}  // namespace slmc::portable
