// One token times four rows of a sparse matrix, for any vector type V: activations of 8 bits meet the stored codes.
//
//   y[n] = sum over segments of  scale_w[n, g] * scale_x[s] * (sum code * q - centre * sum q)
//
// Where each row has a pattern of its own, V::expand puts the codes of 64 inputs at their places and `centre`, which is
// a zero, at the others: q stays in order, and sum q is the same for all rows. Where rows share a pattern, or there is
// none, q is gathered once for all of them.
#pragma once
#include "sparse.h"

namespace slmc {

enum Codes { kByteCodes, kNibbleCodes, kFloat4Codes };

namespace {

constexpr int64_t kCodesAhead = 1024;  // bytes of codes between a prefetch and its use

// Four rows and a token.
struct Quad {
  const uint8_t* codes[kQuadRows];
  const uint8_t* masks[kQuadRows];
  const float* factors[kQuadRows];  // scale_w * scale_x
  int64_t code_stride, mask_stride, units;
  int half;              // codes of 64 inputs
  const int8_t* q;       // V::kBytes per half
  const int32_t* start;  // -centre * sum q per lane: per half, or per unit where its halves share a scale
};

template <typename V, Codes codes>
SLMC_INLINE void read_codes(const uint8_t* at, int half, typename V::Part part, typename V::I* out) {
  out[0] = V::load(at, part);
  if constexpr (codes == kByteCodes) {
    out[1] = V::load(at + half, part);
  } else {
    V::split(out[0], out);
    if constexpr (codes == kFloat4Codes) {
      out[0] = V::float4(out[0]);
      out[1] = V::float4(out[1]);
    }
  }
}

template <typename V, Codes codes, bool expands, Scales scales>
void multiply_quad(const Quad& quad, float* out) {
  constexpr int centre = codes == kByteCodes ? 128 : codes == kNibbleCodes ? 8 : 12;
  const typename V::Part part = V::part(quad.half);
  const int quad_bytes = kQuadRows * quad.half * (codes == kByteCodes ? 2 : 1);
  typename V::F totals[kQuadRows];
  const uint8_t* at[kQuadRows];
  const uint8_t* masks[kQuadRows];
  const float* factors[kQuadRows];
  for (int r = 0; r < kQuadRows; ++r) {
    totals[r] = V::zero();
    at[r] = quad.codes[r];
    masks[r] = quad.masks[r];
    factors[r] = quad.factors[r];
  }
  const int8_t* q = quad.q;
  const int32_t* start = quad.start;
  for (int64_t u = 0; u < quad.units; ++u) {
    const typename V::I q0 = V::load(q), q1 = V::load(q + V::kBytes);
    const typename V::I start0 = V::load(start);
    const typename V::I start1 = scales == kPerUnit ? start0 : V::load(start + V::kLanes);
    for (int ahead = 0; ahead < quad_bytes; ahead += 64) V::prefetch(at[0] + kCodesAhead + ahead);
#pragma GCC unroll 4
    for (int r = 0; r < kQuadRows; ++r) {
      typename V::I w[2];
      read_codes<V, codes>(at[r], quad.half, part, w);
      at[r] += quad.code_stride;
      if constexpr (expands) {
        w[0] = V::template expand<centre>(w[0], masks[r]);
        w[1] = V::template expand<centre>(w[1], masks[r] + 8);
        masks[r] += quad.mask_stride;
      }
      if constexpr (scales == kPerUnit) {
        const typename V::I sum = V::dot(V::dot(start0, w[0], q0), w[1], q1);
        totals[r] = V::fma(V::to_float(sum), V::template spread<1>(factors[r]), totals[r]);
      } else {
        constexpr int each = scales / 2;
        const typename V::F sum0 = V::to_float(V::dot(start0, w[0], q0));
        const typename V::F sum1 = V::to_float(V::dot(start1, w[1], q1));
        totals[r] = V::fma(sum0, V::template spread<each>(factors[r]), totals[r]);
        totals[r] = V::fma(sum1, V::template spread<each>(factors[r] + each), totals[r]);
      }
      factors[r] += scales;
    }
    q += 2 * V::kBytes;
    start += V::kLanes * (scales == kPerUnit ? 1 : 2);
  }
  V::sum4(totals, out);
}

template <typename V, bool expands, Scales scales>
void multiply_codes(Codes codes, const Quad& quad, float* out) {
  switch (codes) {
    case kByteCodes: return multiply_quad<V, kByteCodes, expands, scales>(quad, out);
    case kNibbleCodes: return multiply_quad<V, kNibbleCodes, expands, scales>(quad, out);
    default: return multiply_quad<V, kFloat4Codes, expands, scales>(quad, out);
  }
}

template <typename V, bool expands>
void multiply_any(Scales scales, Codes codes, const Quad& quad, float* out) {
  switch (scales) {
    case kPerUnit: return multiply_codes<V, expands, kPerUnit>(codes, quad, out);
    case kPerHalf: return multiply_codes<V, expands, kPerHalf>(codes, quad, out);
    default: return multiply_codes<V, expands, kPerEighth>(codes, quad, out);
  }
}

inline Codes codes_of(const SparseMatrix& m) {
  return m.bits == 8 ? kByteCodes : m.float4 ? kFloat4Codes : kNibbleCodes;
}

// start[lane] = -centre * sum of the lane's four q, for halves of V::kBytes; added over both halves where they share a
// scale.
template <typename V>
void fill_start(const int8_t* q, int64_t units, Scales scales, int centre, int32_t* start) {
  const typename V::I ones = V::set(1);
  for (int64_t u = 0; u < units; ++u, q += 2 * V::kBytes) {
    typename V::I first = V::dot(V::nothing(), ones, V::load(q));
    typename V::I second = V::dot(V::nothing(), ones, V::load(q + V::kBytes));
    if (scales == kPerUnit) {
      V::store(start, V::times(V::add(first, second), -centre));
      start += V::kLanes;
    } else {
      V::store(start, V::times(first, -centre));
      V::store(start + V::kLanes, V::times(second, -centre));
      start += 2 * V::kLanes;
    }
  }
}

// q of the inputs that a shared pattern keeps, each half at the beginning of V::kBytes and zeros behind.
template <typename V>
void gather(const int8_t* q, const uint8_t* masks, int64_t units, int8_t* out) {
  for (int64_t half = 0; half < 2 * units; ++half) V::gather(q + 64 * half, masks + 8 * half, out + V::kBytes * half);
}

// The scales and patterns of rows n .. n + 3: they come in short runs, which the processor alone fetches too late.
template <typename V>
SLMC_INLINE void fetch_rows(const SparseMatrix& m, int64_t n, bool patterns) {
  for (int64_t i = 0; i < 2 * kQuadRows * m.groups; i += 64)
    V::prefetch(reinterpret_cast<const uint8_t*>(m.scales + n * m.groups) + i);
  if (!patterns) return;
  const int64_t bytes = m.units * m.table->unit_bytes();
  for (int64_t i = 0; i < kQuadRows * bytes; i += 64) V::prefetch(m.patterns + n * bytes + i);
}

// Output features first .. last of all tokens.
template <typename V, bool expands>
void multiply_rows(const SparseMatrix& m, const SparseInput& in, float* y, int64_t first, int64_t last) {
  static thread_local Arena arena;
  arena.reset();
  const Codes codes = codes_of(m);
  const int centre = codes == kByteCodes ? 128 : codes == kNibbleCodes ? 8 : 12;
  const int64_t factors_of_row = m.units * in.scales, room = factors_of_row + 32;
  auto* factors = arena.take<float>(kQuadRows * room);
  auto* halves = arena.take<float>(m.groups + 16);
  auto* masks = arena.take<uint8_t>(kQuadRows * m.units * kMaskBytes + 64);
  auto* start = arena.take<int32_t>(in.tokens * m.units * 2 * V::kLanes);
  auto* gathered = expands ? nullptr : arena.take<int8_t>(in.tokens * m.units * 2 * V::kBytes);
  const bool shared = m.patterns && !expands;
  const auto prepare_start = [&](const int8_t* q) {
    for (int64_t t = 0; t < in.tokens; ++t)
      fill_start<V>(q + t * m.units * 2 * V::kBytes, m.units, in.scales, centre, start + t * m.units * 2 * V::kLanes);
  };
  if (!shared) prepare_start(in.q);
  for (int64_t n = first; n < last; n += kQuadRows) {
    const int rows = static_cast<int>(last - n < kQuadRows ? last - n : kQuadRows);
    if (shared && (n == first || n % m.pattern_rows == 0)) {
      const int64_t plane = n / m.pattern_rows * m.units * m.table->unit_bytes();
      V::decode_patterns(*m.table, m.patterns + plane, m.units, masks);
      for (int64_t t = 0; t < in.tokens; ++t)
        gather<V>(in.q + t * m.padded(), masks, m.units, gathered + t * m.units * 2 * V::kBytes);
      prepare_start(gathered);
    }
    fetch_rows<V>(m, n + kQuadRows, expands);
    Quad quad{};
    quad.units = m.units;
    quad.half = static_cast<int>(m.kept / 2);
    const bool whole = n + kQuadRows <= m.N;
    if (expands) {
      const int64_t bytes = m.table->unit_bytes();
      V::decode_patterns(*m.table, m.patterns + n * m.units * bytes, rows * m.units, masks);
      quad.mask_stride = whole ? kQuadRows * kMaskBytes : kMaskBytes;
    }
    for (int r = 0; r < kQuadRows; ++r) {
      const int row = r < rows ? r : rows - 1;
      const Strip strip = m.strip(m.codes, n + row, m.code_bytes());
      quad.codes[r] = strip.first;
      quad.code_stride = strip.stride;
      quad.masks[r] = masks + row * (whole ? kMaskBytes : m.units * kMaskBytes);
      quad.factors[r] = factors + row * room;
    }
    for (int64_t t = 0; t < in.tokens; ++t) {
      const float* scale_x = in.factors + t * room;
      for (int r = 0; r < rows; ++r) {
        V::fill_factors(m.scales + (n + r) * m.groups, m.groups, m.group * in.scales, scale_x, factors_of_row, halves,
                        factors + r * room);
      }
      const int8_t* q = shared ? gathered : in.q;
      quad.q = q + t * m.units * 2 * V::kBytes;
      quad.start = start + t * m.units * 2 * V::kLanes;
      float sums[kQuadRows];
      multiply_any<V, expands>(in.scales, codes, quad, sums);
      for (int r = 0; r < rows; ++r) y[t * m.N + n + r] = sums[r];
    }
  }
}

}  // namespace
}  // namespace slmc
