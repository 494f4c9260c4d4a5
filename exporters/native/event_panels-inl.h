// The event kernels of one vector type V: many tokens by way of panels, and the widths that are compiled.
#pragma once
#include "events-inl.h"

namespace slmc {
namespace {

// One code of a row, wherever it lies.
inline int code_at(const EventMatrix& m, int64_t k, int64_t n) {
  const int low = low_bits(m.bits), high = high_bits(m.bits);
  const int64_t per_block = kBlockWords * m.per_word(), block = n / per_block, inside = n % per_block;
  const int64_t left = m.words() - block * kBlockWords, words = left < kBlockWords ? left : kBlockWords;
  const int64_t at = (block * kBlockWords + inside % words) * m.per_word() + inside / words;
  const auto bits_at = [&](const uint8_t* row, int width) {
    return row[at * width / 8] >> (at * width % 8) & ((1 << width) - 1);
  };
  const int code = bits_at(m.codes + k * m.row_bytes(), low);
  return high ? code | bits_at(m.high + k * m.high_row_bytes(), high) << low : code;
}

// One vector of outputs, from n on, of a panel whose rows begin at `out`: inputs k0 .. k1 of one group.
template <typename V, int bits>
void fill_vector(const EventMatrix& m, int64_t n, int64_t k0, int64_t k1, float* out, int64_t stride) {
  using L = Layout<V, bits>;
  const int64_t left = m.N - n, at = k0 / m.group * m.N + n;
  const int count = static_cast<int>(left < V::kLanes ? (left > 0 ? left : 0) : V::kLanes);
  const typename V::F centre = V::set(static_cast<float>(m.centre()));
  const typename V::F scale = count ? V::load_halves_first(m.scales + at, count) : V::zero();
  const typename V::F offset = m.zeros && count ? V::sub(V::load_bytes_first(m.zeros + at, count), centre) : V::zero();
  const int64_t block = n / (kBlockWords * L::per_lane), inside = n % (kBlockWords * L::per_lane);
  if ((block + 1) * kBlockWords > m.words()) {  // the last block, of fewer words
    for (int64_t k = k0; k < k1; ++k, out += stride) {
      float codes[V::kLanes] = {};
      for (int i = 0; i < count; ++i) codes[i] = static_cast<float>(code_at(m, k, n + i) - m.centre());
      V::store(out, V::mul(V::sub(V::load(codes), offset), scale));
    }
    return;
  }
  const int64_t word = block * kBlockWords + inside % kBlockWords;
  const uint8_t* low = m.codes + word * 4;
  const uint8_t* high = m.high + word * 4 * L::high / L::low;
  unrolled<L::per_lane>([&](auto place) {
    if (place.value != inside / kBlockWords) return;
    for (int64_t k = k0; k < k1; ++k, out += stride) {
      typename V::template Words<bits> words;
      words.read(low + k * m.row_bytes(), high + k * m.high_row_bytes());
      const typename V::F code = words.template multiply<place.value>(V::set(1.0f), V::zero());
      V::store(out, V::mul(V::sub(code, offset), scale));
    }
  });
}

template <typename V, int bits>
void product_events(const EventMatrix& m, const float* x, int64_t tokens, float* y, int64_t first, int64_t last) {
  int64_t from, to;
  outputs_of(m, first, last, &from, &to);
  product32<V>(m.N, m.K, x, tokens, y, from, to, [&](FloatPanel<V>& panel, int64_t n, int64_t k0, int64_t k1) {
    for (int r = 0; r < panel.kRowVectors; ++r)
      for (int64_t k = k0; k < k1;) {
        const int64_t end = (k / m.group + 1) * m.group, stop = end < k1 ? end : k1;
        float* out = panel.w + (k - k0) * panel.kRows + r * V::kLanes;
        fill_vector<V, bits>(m, n + r * V::kLanes, k, stop, out, panel.kRows);
        k = stop;
      }
  });
}

template <typename V>
void multiply_events_of(const EventMatrix& m, const Events& e, float* y, int64_t first, int64_t last) {
  switch (m.bits) {
    case 2: return multiply_events<V, 2>(m, e, y, first, last);
    case 3: return multiply_events<V, 3>(m, e, y, first, last);
    case 4: return multiply_events<V, 4>(m, e, y, first, last);
    case 5: return multiply_events<V, 5>(m, e, y, first, last);
    case 6: return multiply_events<V, 6>(m, e, y, first, last);
    default: return multiply_events<V, 8>(m, e, y, first, last);
  }
}

template <typename V>
void product_events_of(const EventMatrix& m, const float* x, int64_t tokens, float* y, int64_t first, int64_t last) {
  switch (m.bits) {
    case 2: return product_events<V, 2>(m, x, tokens, y, first, last);
    case 3: return product_events<V, 3>(m, x, tokens, y, first, last);
    case 4: return product_events<V, 4>(m, x, tokens, y, first, last);
    case 5: return product_events<V, 5>(m, x, tokens, y, first, last);
    case 6: return product_events<V, 6>(m, x, tokens, y, first, last);
    default: return product_events<V, 8>(m, x, tokens, y, first, last);
  }
}

template <typename V>
constexpr EventKernels event_kernels_of() {
  return {multiply_events_of<V>, product_events_of<V>, V::list_inputs};
}

}  // namespace
}  // namespace slmc
