// The kernels of one vector type V: which way a product goes, and the widths that are compiled.
//
// A type that only brings better integer products leaves the others to `floats`, the kernels of the type below it.
#pragma once
#include "panel_float-inl.h"
#include "panel_integer-inl.h"
#include "tiles-inl.h"

namespace slmc {
namespace {

constexpr int kHalfRows = 4;  // rows of float16 weights that are read at once

template <typename V, int bits>
void multiply_bits(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last) {
  if (p.way == Prepared::kTiles8) return tiles_range<V, bits, true>(m, p, y, first, last);
  product8<V, bits>(m, p, y, first, last);
}

template <typename V, int bits>
void multiply_floats(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last) {
  if (p.way == Prepared::kTiles32) return tiles_range<V, bits, false>(m, p, y, first, last);
  product32<V>(m.N, m.K, p.x, p.tokens, y, first, last,
               [&](FloatPanel<V>& panel, int64_t n, int64_t k0, int64_t k1) {
                 panel.template fill<bits, false>(m, nullptr, n, k0, k1);
               });
}

template <typename V, int bits>
void multiply_steps8(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last) {
  if (p.way == Prepared::kTiles8) return tiles_range<V, bits, true, true>(m, p, y, first, last);
  const Steps steps(m, !V::kSignedCodes8);
  product8<V, 8, bits>(m, p, y, first, last, &steps);
}

template <typename V, int bits>
void multiply_steps32(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last) {
  if (p.way == Prepared::kTiles32) return tiles_range<V, bits, false, true>(m, p, y, first, last);
  const Steps steps(m, false);
  product32<V>(m.N, m.K, p.x, p.tokens, y, first, last,
               [&](FloatPanel<V>& panel, int64_t n, int64_t k0, int64_t k1) {
                 panel.template fill<bits, true>(m, &steps, n, k0, k1);
               });
}

// body(Index<bits>) with the matrix's.
template <typename Body>
SLMC_INLINE auto with_bits(int bits, const Body& body) {
  switch (bits) {
    case 1: return body(Index<1>{});
    case 2: return body(Index<2>{});
    case 3: return body(Index<3>{});
    case 4: return body(Index<4>{});
    case 5: return body(Index<5>{});
    case 6: return body(Index<6>{});
    default: return body(Index<8>{});
  }
}

// Of a matrix with a table of steps.
template <typename V, const LinearKernels* floats>
void multiply_steps(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last) {
  if (p.way == Prepared::kTiles8 || p.way == Prepared::kProduct8)
    return m.bits == 3 ? multiply_steps8<V, 3>(m, p, y, first, last) : multiply_steps8<V, 4>(m, p, y, first, last);
  if constexpr (floats != nullptr) return floats->multiply(m, p, y, first, last);
  else return m.bits == 3 ? multiply_steps32<V, 3>(m, p, y, first, last) : multiply_steps32<V, 4>(m, p, y, first, last);
}

template <typename V, const LinearKernels* floats>
void multiply(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last) {
  if (m.steps) return multiply_steps<V, floats>(m, p, y, first, last);
  if (p.way == Prepared::kTiles8 || p.way == Prepared::kProduct8)
    return with_bits(m.bits, [&](auto bits) { multiply_bits<V, bits.value>(m, p, y, first, last); });
  if constexpr (floats != nullptr)
    floats->multiply(m, p, y, first, last);
  else
    with_bits(m.bits, [&](auto bits) { multiply_floats<V, bits.value>(m, p, y, first, last); });
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
  for (; n + kHalfRows <= last; n += kHalfRows)
    for (int64_t t = 0; t < tokens; ++t) half_rows<V, kHalfRows>(m, x + t * m.K, n, y + t * m.N);
  for (; n < last; ++n)
    for (int64_t t = 0; t < tokens; ++t) half_rows<V, 1>(m, x + t * m.K, n, y + t * m.N);
}

template <const LinearKernels* floats>
void multiply_half_by(const HalfMatrix& m, const float* x, int64_t tokens, float* y, int64_t first, int64_t last) {
  floats->multiply_half(m, x, tokens, y, first, last);
}

template <typename V>
constexpr LinearKernels kernels_of() {
  return {prepare<V>, multiply<V, nullptr>, half_product<V>};
}

template <typename V, const LinearKernels* floats>
constexpr LinearKernels kernels_over() {
  return {prepare<V>, multiply<V, floats>, multiply_half_by<floats>};
}

}  // namespace
}  // namespace slmc
