// Sparse products on AVX2: one or a few tokens of 8 bits times four-bit codes.
//
//   y[n] = sum over segments of  scale_w[n, g] * scale_x[s] * sum (code - centre) * q
//
// Two inputs' bytes meet in 16 bits: 8 * 2 * 15 * 127 fits, which a unit's codes never exceed. What a pattern does is
// said to byte shuffles, one of 16 bytes (a control) for 16 inputs:
//
//   kGather   half of the inputs kept, a pattern per row: controls pick the q of the stored codes
//   kExpand   any other part kept, a pattern per row: controls put the codes at their places, and zero, whose bit 7
//             then picks the centre, at the others; q stays in order
//   kPlain    a pattern shared by rows, or none: q is gathered once for all of them
#include <algorithm>

#include "activations-inl.h"
#include "kernels.h"
#include "units_avx2_rows.h"

namespace slmc::avx2 {
namespace {

constexpr int64_t kSparseAhead = 4096;  // bytes between a prefetch and its use

// What a way reads of one token: vectors of q per unit, and start values in words of 16 bits.
struct Token {
  const int8_t* q;
  const int16_t* start;
  const float* scale_x;
};

// One call's sizes.
struct Shapes {
  Way way;
  Scales scales;
  int64_t vectors, starts;  // per unit
  int64_t factors, room;    // of a row, and with a vector behind

  explicit Shapes(const SparseMatrix& m)
      : way(way_of(m)), scales(scales_of_group(m.group)),
        vectors(way == kPlain ? 2 * ((m.kept / 2 + 31) / 32) : 4),
        starts(way == kGather ? 0 : scales == kPerUnit ? 1 : scales == kPerHalf ? 2 : vectors),
        factors(m.units * scales), room(factors + Vector::kLanes) {}
};

// start = -centre * (sums of two neighbouring q), added over the vectors that share a factor.
void fill_start(const Shapes& shapes, int64_t units, int centre, const int8_t* q, int16_t* start) {
  if (shapes.starts == 0) return;
  const int64_t each = shapes.vectors / shapes.starts;
  for (int64_t i = 0; i < units * shapes.starts; ++i, start += 16) {
    I sum = _mm256_setzero_si256();
    for (int64_t v = 0; v < each; ++v, q += 32)
      sum = add16(sum, pairs(_mm256_set1_epi8(static_cast<char>(centre)), load(q)));
    _mm256_storeu_si256(reinterpret_cast<I*>(start), _mm256_sub_epi16(_mm256_setzero_si256(), sum));
  }
}

// The q that a shared pattern keeps, each half of a unit at the beginning of its vectors and zeros behind.
void gather_any(const SparseMatrix& m, const Shapes& shapes, const int8_t* q, const uint8_t* masks, int8_t* out) {
  const int64_t bytes = 32 * shapes.vectors, half = m.kept / 2;
  int8_t kept[kUnitInputs + 8];
  for (int64_t u = 0; u < m.units; ++u, out += bytes) {
    int8_t* end = kept;
    std::memset(kept + m.kept - 8, 0, 16);  // masks of any bytes may keep fewer
    for (int i = 0; i < kMaskBytes; ++i, q += 8) {
      uint64_t eight;
      std::memcpy(&eight, q, sizeof eight);
      const uint64_t places = _pdep_u64(*masks, 0x0101010101010101u) * 255;
      eight = _pext_u64(eight, places);
      std::memcpy(end, &eight, sizeof eight);
      end += __builtin_popcount(*masks++);
    }
    std::memset(out, 0, bytes);
    std::memcpy(out, kept, half);
    std::memcpy(out + bytes / 2, kept + half, half);
  }
}

// The same with controls, where half of the inputs are kept and q is in the order for that.
void gather_half(const SparseMatrix& m, int64_t tokens, const int8_t* q, int64_t n, uint8_t* controls, int8_t* out) {
  constexpr int64_t bytes = kUnitInputs / 2;
  const uint8_t* fields = m.patterns + n / m.pattern_rows * m.units * m.table->unit_bytes();
  if (m.table->field_bits == 6) {
    for (int64_t u = 0; u < m.units; ++u) unit_controls_2_of_4(fields + 12 * u, controls + bytes * u);
  } else {
    for (int64_t u = 0; u < m.units; ++u)
      unit_controls<7, kGather>(m.table->controls, fields + 14 * u, controls + bytes * u);
  }
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t half = 0; half < 2 * m.units; ++half, q += 64, out += 32)
      _mm256_storeu_si256(reinterpret_cast<I*>(out), picked(q, controls + 32 * half));
}

void fill_row_factors(const SparseMatrix& m, const Shapes& shapes, int64_t n, const float* scale_x, float* out) {
  const uint16_t* scales = m.scales + n * m.groups;
  int64_t f = 0;
  if (m.groups == shapes.factors) {
    for (; f + 8 <= shapes.factors; f += 8)
      Vector::store(out + f, Vector::mul(Vector::load_halves(scales + f), Vector::load(scale_x + f)));
  }
  const int64_t inputs = kUnitInputs / shapes.scales;
  int64_t known = -1;
  float scale = 0;
  for (; f < shapes.factors; ++f) {
    const int64_t g = f * inputs / m.group;
    if (g != known) scale = g < m.groups ? Vector::half(scales[known = g]) : 0;
    out[f] = scale * scale_x[f];
  }
}

// Four rows of a token; codes and patterns of all of them begin at `rows` and, unit by unit, at `fields`.
template <Way way, bool float4, Scales scales, int sixteens>
void multiply_quad(const SparseMatrix& m, SparseRow* rows, const Strip* fields, uint8_t* controls, const Token& token,
                   float* out) {
  constexpr int64_t control_bytes = way == kGather ? kUnitInputs / 2 : kUnitInputs;
  constexpr int64_t vector_bytes = way == kPlain ? 64 * ((sixteens + 1) / 2) : kUnitInputs;
  constexpr int64_t starts = scales == kPerUnit ? 1 : scales == kPerHalf ? 2 : vector_bytes / 32;
  F totals[kQuadRows];
  for (F& total : totals) total = _mm256_setzero_ps();
  const int8_t* q = token.q;
  const int16_t* start = token.start;
  for (int64_t u = 0; u < m.units; u += kBlockUnits) {
    const int64_t units = m.units - u < kBlockUnits ? m.units - u : kBlockUnits;
    for (int64_t at = 0; at < kQuadRows * units * m.code_bytes(); at += 64)
      Vector::prefetch(rows[0].codes + kSparseAhead + at);
    if constexpr (way != kPlain) {
      for (int64_t at = 0; at < kQuadRows * units * m.table->unit_bytes(); at += 64)
        Vector::prefetch(fields[0].first + u * fields[0].stride + kSparseAhead + at);
      block_controls<way>(*m.table, fields, u, units, controls);
      for (int r = 0; r < kQuadRows; ++r) {
        rows[r].controls = controls + r * control_bytes;
        rows[r].control_stride = kQuadRows * control_bytes;
      }
    }
    if constexpr (way == kPlain) plain_rows<float4, scales, sixteens>(rows, q, start, units, totals);
    for (int r = 0; r < kQuadRows; ++r) {
      if constexpr (way == kGather) totals[r] = gather_row<float4, scales>(rows[r], q, units, totals[r]);
      if constexpr (way == kExpand)
        totals[r] = expand_row<float4, scales>(rows[r], q, start, m.kept / 8, units, totals[r]);
      rows[r].codes += units * rows[r].code_stride;
      rows[r].factors += units * scales;
    }
    q += units * vector_bytes;
    start += units * starts * 16;
  }
  sum4(totals, out);
}

using MultiplyQuad = void (*)(const SparseMatrix&, SparseRow*, const Strip*, uint8_t*, const Token&, float*);

template <Way way, bool float4, Scales scales>
MultiplyQuad quad_of_kept(int64_t kept) {
  if constexpr (way == kPlain) {
    switch (kept / 32) {
      case 1: return multiply_quad<way, float4, scales, 1>;
      case 2: return multiply_quad<way, float4, scales, 2>;
      case 3: return multiply_quad<way, float4, scales, 3>;
      default: return multiply_quad<way, float4, scales, 4>;
    }
  } else {
    return multiply_quad<way, float4, scales, 0>;
  }
}

template <Way way, bool float4>
MultiplyQuad quad_of_scales(const SparseMatrix& m, Scales scales) {
  switch (scales) {
    case kPerUnit: return quad_of_kept<way, float4, kPerUnit>(m.kept);
    case kPerHalf: return quad_of_kept<way, float4, kPerHalf>(m.kept);
    default: return quad_of_kept<way == kGather ? kExpand : way, float4, kPerEighth>(m.kept);
  }
}

template <bool float4>
MultiplyQuad quad_of_way(const SparseMatrix& m, const Shapes& shapes) {
  switch (shapes.way) {
    case kGather: return quad_of_scales<kGather, float4>(m, shapes.scales);
    case kExpand: return quad_of_scales<kExpand, float4>(m, shapes.scales);
    default: return quad_of_scales<kPlain, float4>(m, shapes.scales);
  }
}

// Puts the inputs of every 64 in the order that kGather reads.
void order_for_gather(int8_t* q, int64_t count) {
  for (int8_t* end = q + count; q < end; q += 64) {
    int8_t second[16];
    std::memcpy(second, q + 16, 16);
    std::memcpy(q + 16, q + 32, 16);
    std::memcpy(q + 32, second, 16);
  }
}

const SparseInput* prepare(const SparseMatrix& m, const float* x, int64_t tokens, Arena& arena) {
  if (!is_known(m)) return nullptr;
  const Shapes shapes(m);
  auto* q = arena.take<int8_t>(tokens * m.padded());
  auto* factors = arena.take<float>(tokens * shapes.room);
  auto* padded = arena.take<float>(m.padded());
  const int64_t block = m.group < kActivationGroup ? m.group : kActivationGroup;
  const int64_t each = kUnitInputs / shapes.scales;  // inputs of a factor
  for (int64_t t = 0; t < tokens; ++t) {
    const float* row = padded_row(x + t * m.K, m.K, m.padded(), padded);
    for (int64_t k = 0; k < m.padded(); k += block) {
      int32_t sum;
      const float scale = quantise<Vector>(row + k, block, q + t * m.padded() + k, &sum);
      for (int64_t i = 0; i < block; i += each) factors[t * shapes.room + (k + i) / each] = scale;
    }
  }
  if (is_picked(m)) order_for_gather(q, tokens * m.padded());
  return new (arena.take<SparseInput>(1)) SparseInput{tokens, shapes.scales, q, factors};
}

// Where the four rows from n on begin; the last ones again where the matrix ends.
class SparseRows {
 public:
  SparseRows(const SparseMatrix& m, const Shapes& shapes, Arena& arena)
      : m_(m), way_(shapes.way), room_(shapes.room), factors_(arena.take<float>(kQuadRows * shapes.room)),
        copy_(arena.take<uint8_t>(way_ == kExpand ? 2 * kQuadRows * m.units * m.code_bytes() + kReadBytes : 0)) {}

  void go_to(int64_t n) {
    const int64_t row_bytes = m_.units * m_.code_bytes();
    const uint8_t* plane = m_.codes;
    if (way_ == kExpand && (m_.N - n - kQuadRows) * row_bytes < kReadBytes) {  // reads would leave the plane
      std::memcpy(copy_, plane + n * row_bytes, (m_.N - n) * row_bytes);
      plane = copy_ - n * row_bytes;
    }
    for (int r = 0; r < kQuadRows; ++r) {
      const int64_t row = n + r < m_.N ? n + r : m_.N - 1;
      const Strip strip = m_.strip(plane, row, m_.code_bytes());
      rows_[r] = {strip.first, nullptr, strip.stride, 0, factors_ + r * room_};
      if (way_ != kPlain) fields_[r] = m_.strip(m_.patterns, row, m_.table->unit_bytes());
    }
  }
  // The rows with the factors of one token.
  SparseRow* of_token(const Shapes& shapes, int64_t n, const float* scale_x, SparseRow* rows) const {
    for (int r = 0; r < kQuadRows; ++r) {
      fill_row_factors(m_, shapes, n + r < m_.N ? n + r : m_.N - 1, scale_x, factors_ + r * room_);
      rows[r] = rows_[r];
    }
    return rows;
  }
  const Strip* fields() const { return fields_; }

 private:
  const SparseMatrix& m_;
  Way way_;
  int64_t room_;
  float* factors_;
  uint8_t* copy_;
  SparseRow rows_[kQuadRows];
  Strip fields_[kQuadRows];
};

void multiply(const SparseMatrix& m, const SparseInput& in, float* y, int64_t first, int64_t last) {
  static thread_local Arena arena;
  arena.reset();
  const Shapes shapes(m);
  const MultiplyQuad quad = m.float4 ? quad_of_way<true>(m, shapes) : quad_of_way<false>(m, shapes);
  const int64_t vector_bytes = m.units * shapes.vectors * 32, start_words = m.units * shapes.starts * 16;
  const bool shared = shapes.way == kPlain && m.patterns;
  auto* gathered = arena.take<int8_t>(shared ? in.tokens * vector_bytes : 0);
  auto* start = arena.take<int16_t>(in.tokens * start_words);
  auto* masks = arena.take<uint8_t>(m.units * kMaskBytes);
  // of a block of all four rows, or of a whole row that they share
  auto* controls = arena.take<uint8_t>(std::max(kBlockUnits * kQuadRows * kUnitInputs, m.units * kUnitInputs / 2));
  const int8_t* q = shared ? gathered : in.q;
  const auto begin = [&](int64_t t) {
    fill_start(shapes, m.units, m.float4 ? 12 : 8, q + t * vector_bytes, start + t * start_words);
  };
  for (int64_t t = 0; t < in.tokens && !shared; ++t) begin(t);
  SparseRows rows(m, shapes, arena);
  for (int64_t n = first; n < last; n += kQuadRows) {
    if (shared && (n == first || n % m.pattern_rows == 0)) {
      if (is_picked(m)) {
        gather_half(m, in.tokens, in.q, n, controls, gathered);
      } else {
        masks_of_row(m, n, masks);
        for (int64_t t = 0; t < in.tokens; ++t)
          gather_any(m, shapes, in.q + t * m.padded(), masks, gathered + t * vector_bytes);
      }
      for (int64_t t = 0; t < in.tokens; ++t) begin(t);
    }
    rows.go_to(n);
    for (int64_t t = 0; t < in.tokens; ++t) {
      const Token token{q + t * vector_bytes, start + t * start_words, in.factors + t * shapes.room};
      SparseRow of_token[kQuadRows];
      float sums[kQuadRows];
      quad(m, rows.of_token(shapes, n, token.scale_x, of_token), rows.fields(), controls, token, sums);
      for (int64_t r = 0; r < kQuadRows && n + r < last; ++r) y[t * m.N + n + r] = sums[r];
    }
  }
}

}  // namespace

const SparseKernels units = {prepare, multiply};

}  // namespace slmc::avx2
