// One vector type V against plain C++; values are such that every result is exact.
#pragma once
#include <initializer_list>

#include "material-inl.h"

namespace {

using slmc::high_bits;
using slmc::low_bits;

template <typename V>
class Checker : Material<V> {
  using Base = Material<V>;
  using typename Base::Bytes, typename Base::F, typename Base::Floats, typename Base::I, typename Base::Words;
  using Base::bytes, Base::expect, Base::expect_bytes, Base::expect_floats, Base::floats, Base::words;
  using Base::kBytes, Base::kLanes, Base::numbers_, Base::out_;

 public:
  int run(const char* name) {
    arithmetic();
    integers();
    reductions();
    narrow_values();
    slmc::unrolled<8>([&](auto i) { dots<i.value + 1>(); });
    slmc::unrolled<6>([&](auto i) { tables<i.value + 2>(); });
    picks<4>();
    picks<8>();
    gathers();
    lists();
    transposes();
    high_planes<2, 1>();
    high_planes<4, 1>();
    high_planes<4, 2>();
    codes<1>();
    codes<2>();
    codes<3>();
    codes<4>();
    codes<5>();
    codes<6>();
    codes<8>();
    return out_.finish(name);
  }

 private:
  void arithmetic() {
    const Floats a = floats(), b = floats(), c = floats();
    const F x = V::load(a.of), y = V::load(b.of), z = V::load(c.of);
    expect_floats("zero", V::zero(), [](int) { return 0.0f; });
    expect_floats("set", V::set(1.5f), [](int) { return 1.5f; });
    expect_floats("add", V::add(x, y), [&](int i) { return a.of[i] + b.of[i]; });
    expect_floats("sub", V::sub(x, y), [&](int i) { return a.of[i] - b.of[i]; });
    expect_floats("mul", V::mul(x, y), [&](int i) { return a.of[i] * b.of[i]; });
    expect_floats("fma", V::fma(x, y, z), [&](int i) { return a.of[i] * b.of[i] + c.of[i]; });
    expect_floats("fnma", V::fnma(x, y, z), [&](int i) { return c.of[i] - a.of[i] * b.of[i]; });
    expect_floats("max_abs", V::max_abs(V::set(40.0f), x), [&](int i) {
      const float size = a.of[i] < 0 ? -a.of[i] : a.of[i];
      return size > 40 ? size : 40.0f;
    });
    for (int count = 0; count <= kLanes; ++count) {
      expect_floats("load_first", V::load_first(a.of, count), [&](int i) { return i < count ? a.of[i] : 0.0f; });
      Floats kept = b;
      V::store_first(kept.of, x, count);
      for (int i = 0; i < kLanes; ++i) out_.same("store_first", i, kept.of[i], i < count ? a.of[i] : b.of[i]);
    }
    Floats ties;
    const float given[] = {0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 126.75f, -126.25f, 3.0f};
    const int rounded[] = {0, 2, 2, 0, -2, 127, -126, 3};
    for (int i = 0; i < kLanes; ++i) ties.of[i] = given[i % 8];
    expect("round", V::round(V::load(ties.of)), [&](int i) { return rounded[i % 8]; });
  }

  void integers() {
    const Words a = words(), b = words(), mask = words();
    const I x = V::load(a.of), y = V::load(b.of);
    const auto u = [](int32_t v) { return static_cast<uint32_t>(v); };
    expect("set", V::set(int32_t{-7}), [](int) { return -7; });
    expect("add", V::add(x, y), [&](int i) { return static_cast<int32_t>(u(a.of[i]) + u(b.of[i])); });
    expect("sub", V::sub(x, y), [&](int i) { return static_cast<int32_t>(u(a.of[i]) - u(b.of[i])); });
    expect("and_", V::and_(x, y), [&](int i) { return a.of[i] & b.of[i]; });
    expect("or_", V::or_(x, y), [&](int i) { return a.of[i] | b.of[i]; });
    expect("right<0>", V::template right<0>(x), [&](int i) { return a.of[i]; });
    expect("right<5>", V::template right<5>(x), [&](int i) { return static_cast<int32_t>(u(a.of[i]) >> 5); });
    expect("left<0>", V::template left<0>(x), [&](int i) { return a.of[i]; });
    expect("left<5>", V::template left<5>(x), [&](int i) { return static_cast<int32_t>(u(a.of[i]) << 5); });
    expect("right_signed<5>", V::template right_signed<5>(x), [&](int i) { return a.of[i] >> 5; });
    expect("choose", V::choose(V::load(mask.of), x, y),
           [&](int i) { return (a.of[i] & mask.of[i]) | (b.of[i] & ~mask.of[i]); });
    const I small = V::template right_signed<12>(x);
    expect_floats("to_float", V::to_float(small), [&](int i) { return static_cast<float>(a.of[i] >> 12); });
    expect_bytes("ones", V::ones(), [](int) { return 1; });
    const Bytes four = bytes(0, 255), from = bytes(0, 15);
    expect_bytes("broadcast", V::broadcast(reinterpret_cast<const int8_t*>(four.of)),
                 [&](int i) { return four.of[i % 4]; });
    int8_t shuffled[16];
    V::shuffle(reinterpret_cast<const int8_t*>(four.of), from.of, shuffled);
    for (int i = 0; i < 16; ++i) out_.same("shuffle", i, int{shuffled[i]}, int{static_cast<int8_t>(four.of[from.of[i]])});
  }

  void reductions() {
    const Floats a = floats();
    Words w;
    float sum = 0, largest = 0;
    int32_t total = 0;
    for (int i = 0; i < kLanes; ++i) {
      w.of[i] = numbers_.from(-100000, 100000);
      total += w.of[i];
      sum += a.of[i];
      const float size = a.of[i] < 0 ? -a.of[i] : a.of[i];
      largest = size > largest ? size : largest;
    }
    out_.same("sum", 0, V::sum(V::load(a.of)), sum);
    out_.same("sum of integers", 0, V::sum(V::load(w.of)), total);
    out_.same("largest", 0, V::largest(V::max_abs(V::zero(), V::load(a.of))), largest);
  }

  void narrow_values() {
    constexpr uint16_t stored[] = {0x3c00, 0xc000, 0x0000, 0x3555, 0x0001, 0x7bff, 0xb800, 0x4248};
    constexpr float value[] = {1.0f, -2.0f, 0.0f, 0.333251953125f, 5.9604644775390625e-8f, 65504.0f, -0.5f, 3.140625f};
    uint16_t halves[kLanes + 16] = {};
    Words in_words;
    for (int i = 0; i < kLanes; ++i) {
      halves[i] = stored[i % 8];
      in_words.of[i] = static_cast<int32_t>(0xabcd0000u | stored[i % 8]);
    }
    for (int i = 0; i < 8; ++i) out_.same("half", i, V::half(stored[i]), value[i]);
    expect_floats("load_halves", V::load_halves(halves), [&](int i) { return value[i % 8]; });
    expect_floats("low_half", V::low_half(V::load(in_words.of)), [&](int i) { return value[i % 8]; });
    const Bytes codes = bytes(0, 255);
    for (int count = 1; count <= kLanes; ++count) {
      expect_floats("load_halves_first", V::load_halves_first(halves, count),
                    [&](int i) { return i < count ? value[i % 8] : 0.0f; });
      expect_floats("load_bytes_first", V::load_bytes_first(codes.of, count),
                    [&](int i) { return i < count ? static_cast<float>(codes.of[i]) : 0.0f; });
    }
    Words steps;
    for (int32_t& step : steps.of) step = numbers_.from(-127, 127);
    int8_t narrow[kLanes];
    V::store_bytes(narrow, V::load(steps.of));
    for (int i = 0; i < kLanes; ++i) out_.same("store_bytes", i, int32_t{narrow[i]}, steps.of[i]);
  }

  // sum + four products of a code and an input per lane, at the codes' extremes too.
  template <int bits>
  void dots() {
    if constexpr (bits == 7) return;
    constexpr bool is_signed = bits == 8 && V::kSignedCodes8;
    constexpr int most = is_signed ? 127 : (1 << bits) - 1, least = is_signed ? -128 : 0;
    for (int round = 0; round < 3; ++round) {
      const Bytes codes = round == 0 ? bytes(most, most) : bytes(least, most);
      const Bytes x = round == 0 ? bytes(127, 127) : round == 1 ? bytes(-127, -127) : bytes(-127, 127);
      const Words start = words();
      const I found = V::template dot<bits>(V::load(start.of), V::load(codes.of), V::load(x.of));
      expect("dot", found, [&](int i) {
        int32_t sum = 0;
        for (int b = 4 * i; b < 4 * i + 4; ++b)
          sum += (is_signed ? static_cast<int8_t>(codes.of[b]) : codes.of[b]) * static_cast<int8_t>(x.of[b]);
        return static_cast<int32_t>(static_cast<uint32_t>(start.of[i]) + static_cast<uint32_t>(sum));
      });
    }
  }

  template <int bits>
  void tables() {
    Bytes table;
    for (int i = 0; i < 128; ++i)
      table.of[i] = static_cast<uint8_t>(i < 1 << bits ? (bits == 7 && i >= 80 ? 0 : numbers_.from(0, 255))
                                                       : table.of[i - (1 << bits)]);
    const Bytes index = bytes(0, 255);
    expect_bytes("look_up", V::template look_up<bits>(table.of, V::load(index.of)),
                 [&](int i) { return table.of[index.of[i] & ((1 << bits) - 1)]; });
  }

  template <int period>
  void picks() {
    const Bytes q = bytes(0, 255), places = bytes(0, 255);
    const typename V::template Block<period> block(reinterpret_cast<const int8_t*>(q.of));
    expect_bytes("pick", block.pick(V::load(places.of)),
                 [&](int i) { return q.of[i % 4 * period + places.of[i] % period]; });
  }

  void gathers() {
    for (const int density : {0, 50, 100}) {
      const Bytes q = bytes(-127, 127);
      uint8_t mask[8] = {};
      int8_t kept[64] = {}, found[256];
      int32_t count = 0, sum = 0;
      for (int i = 0; i < 64; ++i) {
        if (numbers_.from(1, 100) > density) continue;
        mask[i / 8] = static_cast<uint8_t>(mask[i / 8] | 1 << i % 8);
        kept[count] = static_cast<int8_t>(q.of[i]);
        sum += kept[count++];
      }
      const I sums = V::gather(reinterpret_cast<const int8_t*>(q.of), mask, count, found, V::set(int32_t{0}));
      for (int i = 0; i < count; ++i) out_.same("gather", i, int{found[i]}, int{kept[i]});
      out_.same("gather's sum", density, V::sum(sums), sum);
    }
  }

  void lists() {
    constexpr int length = 3 * kLanes + 5;
    float x[length];
    for (float& value : x) value = static_cast<float>(numbers_.from(-1, 1));
    x[7] = __builtin_nanf("");
    x[8] = -0.0f;
    for (const slmc::Signs signs : {slmc::kAnySign, slmc::kPositive, slmc::kNegative}) {
      int32_t found[length + 16], expected[length], count = 0;
      for (int i = 2; i < length; ++i)
        if (signs == slmc::kAnySign ? x[i] != 0 : signs == slmc::kPositive ? x[i] > 0 : x[i] < 0) expected[count++] = i;
      out_.same("count of inputs", signs, V::list_inputs(x, 2, length, signs, found), count);
      for (int i = 0; i < count; ++i) out_.same("list_inputs", i, found[i], expected[i]);
    }
  }

  void transposes() {
    Bytes rows[kLanes];
    const uint8_t* at[kLanes];
    for (int i = 0; i < kLanes; ++i) at[i] = (rows[i] = bytes(0, 255)).of;
    I found[4];
    V::transpose(at, 16, found);
    for (int d = 0; d < 4; ++d)
      expect_bytes("transpose", found[d], [&](int i) { return rows[i / 4].of[16 + 4 * d + i % 4]; });
  }

  // Bits of a high plane where every lane is a row: code c of a word has them from bit first + high * c on.
  template <int low, int high>
  void high_planes() {
    constexpr int in_word = 32 / low * high;
    const Words more = words();
    const Bytes bytes_of = bytes(0, (1 << low) - 1);
    Checker &self = *this;  // gcc 12 fails at a generic lambda that captures this
    slmc::unrolled<8 / low>([&](auto part) {
      slmc::unrolled<32 / in_word>([&](auto word) {
        const I found = V::template add_high_rows<low, high, part.value, word.value * in_word>(V::load(bytes_of.of),
                                                                                             V::load(more.of));
        self.expect_bytes("add_high_rows", found, [&](int i) {
          const int bit = word.value * in_word + high * (i % 4 * (8 / low) + part.value);
          const auto bits = static_cast<uint32_t>(more.of[i / 4]) >> bit & ((1u << high) - 1);
          return static_cast<int>(bytes_of.of[i] | bits << low);
        });
      });
    });
  }

  // Codes in two planes, one after another.
  template <int bits>
  void codes() {
    constexpr int low = low_bits(bits), high = high_bits(bits), parts = 8 / low, per_lane = 32 / low;
    const Bytes low_plane = bytes(0, 255), high_plane = bytes(0, 255);
    const auto code = [&](int c) {
      const int below = low_plane.of[c * low / 8] >> (c * low % 8) & ((1 << low) - 1);
      return high ? below | (high_plane.of[c * high / 8] >> (c * high % 8) & ((1 << high) - 1)) << low : below;
    };
    I found[parts];
    V::template unpack<bits>(low_plane.of, high_plane.of, found);
    for (int j = 0; j < parts; ++j) expect_bytes("unpack", found[j], [&](int i) { return code(i * parts + j); });
    typename V::template Words<bits> in_lanes;
    in_lanes.read(low_plane.of, high_plane.of);
    const Floats start = floats();
    Checker &self = *this;  // gcc 12 fails at a generic lambda that captures this
    slmc::unrolled<per_lane>([&](auto p) {
      const F sum = in_lanes.template multiply<p.value>(V::set(2.5f), V::load(start.of));
      self.expect_floats("Words", sum, [&](int i) {
        return start.of[i] + 2.5f * static_cast<float>(code(i * per_lane + p.value) - (1 << (bits - 1)));
      });
    });
  }
};

}  // namespace
