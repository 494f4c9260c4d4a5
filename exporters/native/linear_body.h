// The kernels of one vector type V: which way a product goes, and the widths that are compiled.
//
// A type that only brings better integer products (V::kFloats is false) leaves the others to V::floats().
#pragma once
#include "product_body.h"
#include "tiles_body.h"

namespace slmc {
namespace {

template <typename V, int bits>
void multiply_bits(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last) {
  if (p.way == Prepared::kDecode8) return decode_bits<V, bits, true>(m, p, y, first, last);
  if (p.way == Prepared::kTiles8) return tiles_range<V, bits, true>(m, p, y, first, last);
  if (p.way == Prepared::kProduct8) return product8<V, bits>(m, p, y, first, last);
  if constexpr (V::kFloats) {
    if (p.way == Prepared::kDecode32) return decode_bits<V, bits, false>(m, p, y, first, last);
    if (p.way == Prepared::kTiles32) return tiles_range<V, bits, false>(m, p, y, first, last);
    product32<V>(m.N, m.K, p.x, p.tokens, y, first, last,
                 [&](FloatPanel<V>& panel, int64_t n, int64_t k0, int64_t k1) {
                   panel.template fill<bits>(m, n, k0, k1);
                 });
  } else {
    V::floats().multiply(m, p, y, first, last);
  }
}

template <typename V>
void multiply(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last) {
  switch (m.bits) {
    case 1: return multiply_bits<V, 1>(m, p, y, first, last);
    case 2: return multiply_bits<V, 2>(m, p, y, first, last);
    case 3: return multiply_bits<V, 3>(m, p, y, first, last);
    case 4: return multiply_bits<V, 4>(m, p, y, first, last);
    case 5: return multiply_bits<V, 5>(m, p, y, first, last);
    case 6: return multiply_bits<V, 6>(m, p, y, first, last);
    default: return multiply_bits<V, 8>(m, p, y, first, last);
  }
}

template <typename V>
Prepared prepare(const QMatrix& m, const float* x, int64_t tokens, int activation_bits, Arena& arena) {
  if constexpr (!V::kFloats)
    if (activation_bits != 8) return V::floats().prepare(m, x, tokens, activation_bits, arena);
  switch (m.bits) {
    case 1: return prepare_bits<V, 1>(m, x, tokens, activation_bits, arena);
    case 2: return prepare_bits<V, 2>(m, x, tokens, activation_bits, arena);
    case 3: return prepare_bits<V, 3>(m, x, tokens, activation_bits, arena);
    case 4: return prepare_bits<V, 4>(m, x, tokens, activation_bits, arena);
    case 5: return prepare_bits<V, 5>(m, x, tokens, activation_bits, arena);
    case 6: return prepare_bits<V, 6>(m, x, tokens, activation_bits, arena);
    default: return prepare_bits<V, 8>(m, x, tokens, activation_bits, arena);
  }
}

// Rows n .. n + rows - 1 of one token, float16 weights.
template <typename V, int rows>
SLMC_INLINE void half_rows(const HalfMatrix& m, const float* x, int64_t n, float* y) {
  typename V::F totals[rows];
  unrolled<rows>([&](auto r) { totals[r.value] = V::zero(); });
  const uint16_t* w = m.w + n * m.K;
  int64_t k = 0;
  for (; k + V::kLanes <= m.K; k += V::kLanes) {
    const typename V::F xs = V::load(x + k);
    unrolled<rows>([&](auto r) {
      V::prefetch(w + r.value * m.K + k + 1024);
      totals[r.value] = V::fma(V::load_halves(w + r.value * m.K + k), xs, totals[r.value]);
    });
  }
  unrolled<rows>([&](auto r) {
    float rest = 0;
    for (int64_t i = k; i < m.K; ++i) rest += half_to_float(w[r.value * m.K + i]) * x[i];
    y[n + r.value] = V::sum(totals[r.value]) + rest;
  });
}

template <typename V>
void half_product(const HalfMatrix& m, const float* x, int64_t tokens, float* y, int64_t first, int64_t last) {
  if (tokens >= V::kProductTokens32)
    return product32<V>(
        m.N, m.K, x, tokens, y, first, last,
        [&](FloatPanel<V>& panel, int64_t n, int64_t k0, int64_t k1) { panel.fill(m, n, k0, k1); });
  int64_t n = first;
  for (; n + kRowsAtOnce <= last; n += kRowsAtOnce)
    for (int64_t t = 0; t < tokens; ++t) half_rows<V, kRowsAtOnce>(m, x + t * m.K, n, y + t * m.N);
  for (; n < last; ++n)
    for (int64_t t = 0; t < tokens; ++t) half_rows<V, 1>(m, x + t * m.K, n, y + t * m.N);
}

template <typename V>
void multiply_half(const HalfMatrix& m, const float* x, int64_t tokens, float* y, int64_t first, int64_t last) {
  if constexpr (V::kFloats)
    half_product<V>(m, x, tokens, y, first, last);
  else
    V::floats().multiply_half(m, x, tokens, y, first, last);
}

template <typename V>
constexpr LinearKernels kernels_of() {
  return {prepare<V>, multiply<V>, multiply_half<V>};
}

}  // namespace
}  // namespace slmc
