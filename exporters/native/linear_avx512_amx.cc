// Products with quantised matrices on AVX-512 with AMX: of sixteen tokens and more, whose inputs have 8 bits.
//
// One instruction multiplies 16 tokens by 16 rows over 64 inputs. Sums of a segment go through memory to be scaled; they
// are the same integers as elsewhere, and are scaled in the same order.
#include "linear-inl.h"
#include "kernels.h"
#include "tiles_amx.h"
#include "vector_avx512.h"

namespace slmc::avx512_amx {
namespace {

using avx512::Vector;

constexpr int kTokens = 16;   // of a tile
constexpr int kInputs = 64;   // of a tile, of which half can be taken alone: a segment has a multiple of 32
constexpr int kRowBytes = 64;

// Tile registers, by number: sums of even and of odd segments, inputs, weights, and of each the first half.
enum : int { kEven, kOdd, kX, kW, kHalfX, kHalfW };

TileConfig config_for(int tokens) {
  TileConfig config;
  for (const int tile : {kEven, kOdd, kX, kW, kHalfW}) config.row_bytes[tile] = kRowBytes;
  config.row_bytes[kHalfX] = kRowBytes / 2;
  for (const int tile : {kEven, kOdd, kX, kHalfX}) config.rows[tile] = static_cast<uint8_t>(tokens);
  config.rows[kW] = kInputs / 4;
  config.rows[kHalfW] = kInputs / 8;
  return config;
}

// The sums of one segment of some tokens, [token][row].
struct alignas(64) Sums {
  int32_t of[kTokens][Vector::kLanes];
};

template <int bits>
class Block {
  using Panel = IntegerPanel<Vector, bits, true>;

 public:
  Block(const QMatrix& m, const Prepared& p, const Panel& panel, int64_t s0, int64_t s1)
      : m_(m), p_(p), panel_(panel), s0_(s0), s1_(s1) {}

  // Tokens t .. t + count - 1 times vector r of the panel's rows; tiles have `count` rows.
  template <bool whole>
  void multiply(int64_t t, int count, int r, Tile tile) const {
    __m512 total[kTokens];
    unrolled<kTokens>([&](auto i) {
      const bool there = whole || i.value < count;
      total[i.value] = tile.begin || !there ? Vector::zero() : load_rows<Vector>(tile.y + i.value * tile.stride, tile.rows);
    });
    Sums even, odd;
    if constexpr (!whole) even = odd = {};
    add_up<kEven>(t, r, s0_, &even);
    for (int64_t s = s0_; s < s1_; s += 2) {
      if (s + 1 < s1_) add_up<kOdd>(t, r, s + 1, &odd);
      scale<whole>(t, count, r, s, even, total);
      if (s + 1 == s1_) break;
      if (s + 2 < s1_) add_up<kEven>(t, r, s + 2, &even);
      scale<whole>(t, count, r, s + 1, odd, total);
    }
    unrolled<kTokens>([&](auto i) {
      if (whole || i.value < count) store_rows<Vector>(tile.y + i.value * tile.stride, total[i.value], tile.rows);
    });
  }

 private:
  template <int sums>
  SLMC_INLINE void add_up(int64_t t, int r, int64_t s, Sums* out) const {
    const Segment segment = p_.segments[s];
    const int8_t* x = p_.quantised + t * m_.padded() + segment.first;
    const uint8_t* w = panel_.codes + (segment.first - p_.segments[s0_].first) * Panel::kRows + r * kRowBytes;
    constexpr int64_t step = Panel::kRows * 4;
    clear<sums>();
    int64_t k = 0;
    for (; k + kInputs <= segment.length; k += kInputs) {
      load<kX>(x + k, m_.padded());
      load<kW>(w + k * Panel::kRows, step);
      multiply_add<sums, kX, kW>();
    }
    if (k < segment.length) {
      load<kHalfX>(x + k, m_.padded());
      load<kHalfW>(w + k * Panel::kRows, step);
      multiply_add<sums, kHalfX, kHalfW>();
    }
    store<sums>(out->of, kRowBytes);
  }

  template <bool whole>
  SLMC_INLINE void scale(int64_t t, int count, int r, int64_t s, const Sums& sums, __m512* total) const {
    const int64_t first = t * p_.segment_count + s, row = r * Vector::kLanes;
    const __m512 scale_w = Vector::load(panel_.scales[s - s0_] + row);
    unrolled<kTokens>([&](auto i) {
      const int64_t at = first + (whole || i.value < count ? i.value : 0) * p_.segment_count;
      const __m512 value = Vector::mul(Vector::to_float(Vector::load(sums.of[i.value])), Vector::set(p_.scales[at]));
      total[i.value] = Vector::fma(value, scale_w, total[i.value]);
      if (p_.sums)
        total[i.value] =
            Vector::fnma(Vector::set(p_.sums[at]), Vector::load(panel_.zero_shares[s - s0_] + row), total[i.value]);
    });
  }

  const QMatrix& m_;
  const Prepared& p_;
  const Panel& panel_;
  int64_t s0_, s1_;
};

// Output features first .. last of all tokens; stored: bits of the matrix's codes, fewer where they stand for steps.
template <int bits, int stored>
void product(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last, const Steps* steps = nullptr) {
  using Panel = IntegerPanel<Vector, bits, true>;
  Panel panel;
  const int rest = static_cast<int>(p.tokens % kTokens);
  const TileConfig whole = config_for(kTokens), some = config_for(rest ? rest : kTokens);
  configure(whole);
  const auto all_tokens = [&](int64_t n, int64_t s0, int64_t s1) {
    const Block<bits> block(m, p, panel, s0, s1);
    const auto tile = [&](int64_t t, int r) {
      const int64_t row = n + r * Vector::kLanes;
      return Tile{y + t * m.N + row, m.N, last - row, s0 == 0};
    };
    int64_t t = 0;
    for (; t + kTokens <= p.tokens; t += kTokens)
      for (int r = 0; r < Panel::kRowVectors; ++r) block.template multiply<true>(t, kTokens, r, tile(t, r));
    if (rest == 0) return;
    configure(some);
    for (int r = 0; r < Panel::kRowVectors; ++r) block.template multiply<false>(t, rest, r, tile(t, r));
    configure(whole);
  };
  over_panels<Vector, stored>(m, p, first, last, panel, all_tokens, steps);
  release();
}

void multiply(const QMatrix& m, const Prepared& p, float* y, int64_t first, int64_t last) {
  if (p.way != Prepared::kProduct8 || p.tokens < kTokens || m.group == 16)
    return avx512::linear.multiply(m, p, y, first, last);
  if (m.steps) {
    const Steps steps(m, false);
    return m.bits == 3 ? product<8, 3>(m, p, y, first, last, &steps) : product<8, 4>(m, p, y, first, last, &steps);
  }
  with_bits(m.bits, [&](auto bits) { product<bits.value, bits.value>(m, p, y, first, last); });
}

void multiply_half(const HalfMatrix& m, const float* x, int64_t tokens, float* y, int64_t first, int64_t last) {
  avx512::linear.multiply_half(m, x, tokens, y, first, last);
}

Prepared prepare(const QMatrix& m, const float* x, int64_t tokens, int activation_bits, Arena& arena) {
  return avx512::linear.prepare(m, x, tokens, activation_bits, arena);
}

}  // namespace

const LinearKernels linear = {prepare, multiply, multiply_half};

}  // namespace slmc::avx512_amx
