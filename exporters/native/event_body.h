// One token times an input-major matrix, for any vector type V: only the rows of inputs that are not zero are read.
//
// Per group of inputs and tile of outputs, sums stay in registers while the group's rows pass by:
//
//   any inputs    y[n] += scale * (sum (code - centre) x  -  (zero - centre) sum x)
//   spikes        y[n] += scale * (sum code  -  zero * count),   in integers; times the spike at the end
//
// Rows in use are far apart in memory, which no hardware foresees: they are asked for ahead.
// Included by one file per instruction set, after its V.
#pragma once
#include "events.h"
#include "product_body.h"

namespace slmc {
namespace {

constexpr int64_t kAheadBytes = 16384;  // of rows between a prefetch and its use

// Into the second cache: the first has fewer lines on their way than memory needs to be kept busy.
SLMC_INLINE void ahead(const void* p) { __builtin_prefetch(p, 0, 2); }

// Asks for the rows of coming inputs in the order of memory, some lines at each step.
class Ahead {
 public:
  // `bytes` of every row, which takes so many steps; `plane` begins with input 0.
  Ahead(const uint8_t* plane, int64_t stride, int64_t bytes, const Events& e, int64_t groups, int64_t steps_per_row)
      : plane_(plane), stride_(stride), bytes_(bytes), index_(e.index), end_(e.index + (bytes ? e.first[groups] : 0)) {
    per_step_ = (bytes + 64 * steps_per_row - 1) / (64 * steps_per_row) * 64;
    for (int64_t fetched = 0; fetched < kAheadBytes && index_ < end_; fetched += bytes, ++index_)
      for (int64_t i = 0; i < bytes; i += 64) ahead(plane_ + *index_ * stride_ + i);
  }
  SLMC_INLINE void step() {
    if (index_ >= end_) return;
    const uint8_t* row = plane_ + *index_ * stride_ + at_;
    for (int64_t i = 0; i < per_step_; i += 64) ahead(row + i);
    at_ += per_step_;
    if (at_ >= bytes_) {
      at_ = 0;
      ++index_;
    }
  }

 private:
  const uint8_t* plane_;
  int64_t stride_, bytes_;
  const int32_t* index_;
  const int32_t* end_;
  int64_t per_step_, at_ = 0;
};

// Chunks of one plane in every row. Where a chunk is longer than the rest of its row it is read beyond, but from a copy
// where that would leave the plane.
template <int chunk_bytes, bool tail>
class Chunks {
 public:
  Chunks(const uint8_t* plane, int64_t row_bytes, int64_t offset, int64_t K)
      : plane_(plane + offset), stride_(row_bytes), rest_(row_bytes - offset) {
    if (tail) safe_ = K - (row_bytes ? (chunk_bytes - rest_ + row_bytes - 1) / row_bytes : 0);
  }
  SLMC_INLINE const uint8_t* row(int64_t k) {
    const uint8_t* at = plane_ + k * stride_;
    if (!tail || k < safe_) return at;
    std::memcpy(copy_, at, static_cast<size_t>(rest_ < chunk_bytes ? rest_ : chunk_bytes));
    return copy_;
  }

 private:
  const uint8_t* plane_;
  int64_t stride_, rest_, safe_ = 0;
  alignas(64) uint8_t copy_[tail ? chunk_bytes + 1 : 1] = {};
};

template <typename V, int bits>
class EventProduct {
  using L = Layout<V, bits>;
  using F = typename V::F;
  using I = typename V::I;
  static constexpr int kBlockChunks = kBlockWords / V::kLanes;
  static constexpr int kSums = V::kLanes == 8 ? 8 : 16;  // half of the registers
  static constexpr int kPlaces = L::per_lane < kSums ? L::per_lane : kSums;
  static constexpr int kChunks32 = kSums / kPlaces;
  static constexpr int kChunks8 = kSums / 2 / L::parts > 0 ? kSums / 2 / L::parts : 1;
  static constexpr int kByteSums = 255 / ((1 << bits) - 1);  // codes that a byte can add up
  static constexpr int kHalfSums = 256;                      // and half a word

  const EventMatrix& m_;
  const Events& e_;
  float* y_;
  Ahead low_, high_;

 public:
  EventProduct(const EventMatrix& m, const Events& e, float* y, int64_t first, int64_t last)
      : m_(m), e_(e), y_(y),
        low_(m.codes + first * 4, m.row_bytes(), (last - first) * 4, e, m.groups, steps(last - first)),
        high_(m.high + first * 4 * L::high / L::low, m.high_row_bytes(), (last - first) * 4 * L::high / L::low, e,
              m.groups, steps(last - first)) {}

  void run(int64_t first, int64_t last) {
    const int64_t whole = m_.words() / kBlockWords * kBlockWords;
    const int64_t end = last < whole ? last : whole;
    for (int64_t g = 0; g < m_.groups; ++g) {
      if (e_.first[g] == e_.first[g + 1]) continue;
      if (e_.spike != 0) {
        some<kChunks8, true>(first / V::kLanes, end / V::kLanes, g);
      } else {
        some<kChunks32, false>(first / V::kLanes, end / V::kLanes, g);
      }
      if (last > whole) rest(whole / V::kLanes, last - whole, g);
    }
  }

 private:
  int64_t steps(int64_t words) const {
    const int64_t chunks = (words + V::kLanes - 1) / V::kLanes;
    if (e_.spike != 0) return (chunks + kChunks8 - 1) / kChunks8;
    return (chunks + kChunks32 - 1) / kChunks32 * (L::per_lane / kPlaces);
  }

  template <int chunks, bool spikes>
  void some(int64_t chunk, int64_t end, int64_t g) {
    for (; chunk + chunks <= end; chunk += chunks) tile<chunks, spikes, false>(chunk, kBlockWords, V::kLanes, g);
    if constexpr (chunks > 1) some<chunks / 2, spikes>(chunk, end, g);
  }

  // A last block of fewer words.
  void rest(int64_t chunk, int64_t words, int64_t g) {
    for (int64_t at = 0; at < words; at += V::kLanes, ++chunk) {
      const int lanes = static_cast<int>(words - at < V::kLanes ? words - at : V::kLanes);
      if (e_.spike != 0) {
        tile<1, true, true>(chunk, words, lanes, g);
      } else {
        tile<1, false, true>(chunk, words, lanes, g);
      }
    }
  }

  // `places` outputs lie between one place of a word and the next.
  template <int chunks, bool spikes, bool tail>
  void tile(int64_t chunk, int64_t places, int lanes, int64_t g) {
    Chunks<chunks * L::low_bytes, tail> low(m_.codes, m_.row_bytes(), chunk * L::low_bytes, m_.K);
    Chunks<chunks * L::high_bytes, tail> high(m_.high, m_.high_row_bytes(), chunk * L::high_bytes, m_.K);
    // chunks begin where a block does, or lie within one
    constexpr int64_t block = kBlockWords * L::per_lane;
    const int64_t first = chunk / kBlockChunks * block, n = first + chunk % kBlockChunks * V::kLanes;
    const int64_t last = ((chunk + chunks - 1) / kBlockChunks + 1) * block;
    const uint16_t* scales = m_.scales + g * m_.N + n;
    const bool plain = !tail && !m_.zeros && last <= m_.N;
    if (plain && g + 1 < m_.groups)
      for (int64_t i = first; i < last; i += 32) ahead(m_.scales + (g + 1) * m_.N + i);
    const auto add = [&](auto c, auto place, F sum, float zero_factor, float centre) __attribute__((always_inline)) {
      constexpr int64_t in_tile = c.value / kBlockChunks * block + c.value % kBlockChunks * V::kLanes;
      if (!plain) return add_to(g, n + in_tile + place.value * places, lanes, sum, zero_factor, centre);
      float* y = y_ + n + in_tile + place.value * kBlockWords;
      V::store(y, V::fma(V::load_halves(scales + in_tile + place.value * kBlockWords), sum, V::load(y)));
    };
    if constexpr (spikes) {
      sum_spikes<chunks>(low, high, g, add);
    } else {
      sum_inputs<chunks, 0>(low, high, g, add);
      if constexpr (kPlaces < L::per_lane) sum_inputs<chunks, kPlaces>(low, high, g, add);
    }
  }

  template <int chunks, int first_place, typename Low, typename High, typename Add>
  SLMC_INLINE void sum_inputs(Low& low, High& high, int64_t g, const Add& add) {
    F sums[chunks][kPlaces];
    unrolled<chunks>([&](auto c) { unrolled<kPlaces>([&](auto p) { sums[c.value][p.value] = V::zero(); }); });
    for (int32_t i = e_.first[g]; i < e_.first[g + 1]; ++i) {
      const int64_t k = e_.index[i];
      const uint8_t* codes = low.row(k);
      const uint8_t* more = L::high ? high.row(k) : nullptr;
      low_.step();
      if constexpr (L::high > 0) high_.step();
      const F x = V::set(e_.x[k]);
      unrolled<chunks>([&](auto c) {
        typename V::template Words<bits> words;
        words.read(codes + c.value * L::low_bytes, more + c.value * L::high_bytes);
        unrolled<kPlaces>([&](auto p) {
          sums[c.value][p.value] = words.template multiply<first_place + p.value>(x, sums[c.value][p.value]);
        });
      });
    }
    const float sum_x = m_.zeros ? e_.sums[g] : 0;
    unrolled<chunks>([&](auto c) {
      unrolled<kPlaces>([&](auto p) {
        add(c, Index<first_place + p.value>{}, sums[c.value][p.value], sum_x, static_cast<float>(m_.centre()));
      });
    });
  }

  template <int chunks, typename Low, typename High, typename Add>
  SLMC_INLINE void sum_spikes(Low& low, High& high, int64_t g, const Add& add) {
    const I bytes = V::set(int32_t{0x00ff00ff}), halves = V::set(int32_t{0xffff});
    for (int32_t i = e_.first[g]; i < e_.first[g + 1];) {
      const int32_t begin = i, end = i + kHalfSums < e_.first[g + 1] ? i + kHalfSums : e_.first[g + 1];
      I wide[chunks][L::parts][2];  // the even and the odd bytes of every part
      unrolled<chunks>([&](auto c) {
        unrolled<L::parts>([&](auto j) { wide[c.value][j.value][0] = wide[c.value][j.value][1] = V::set(int32_t{0}); });
      });
      while (i < end) {
        I narrow[chunks][L::parts];
        unrolled<chunks>([&](auto c) {
          unrolled<L::parts>([&](auto j) { narrow[c.value][j.value] = V::set(int32_t{0}); });
        });
        for (const int32_t stop = i + kByteSums < end ? i + kByteSums : end; i < stop; ++i) {
          const int64_t k = e_.index[i];
          const uint8_t* codes = low.row(k);
          const uint8_t* more = L::high ? high.row(k) : nullptr;
          low_.step();
          if constexpr (L::high > 0) high_.step();
          unrolled<chunks>([&](auto c) {
            I parts[L::parts];
            if constexpr (bits == 8) parts[0] = V::load(codes + c.value * L::low_bytes);
            else V::template unpack<bits>(codes + c.value * L::low_bytes, more + c.value * L::high_bytes, parts);
            // bytes do not overflow, so whole words may be added
            unrolled<L::parts>([&](auto j) {
              narrow[c.value][j.value] = V::add(narrow[c.value][j.value], parts[j.value]);
            });
          });
        }
        unrolled<chunks>([&](auto c) {
          unrolled<L::parts>([&](auto j) {
            I* sums = wide[c.value][j.value];
            sums[0] = V::add(sums[0], V::and_(narrow[c.value][j.value], bytes));
            sums[1] = V::add(sums[1], V::and_(V::template right<8>(narrow[c.value][j.value]), bytes));
          });
        });
      }
      const float count = static_cast<float>(end - begin);
      const F less = V::set(m_.zeros ? 0.0f : count * static_cast<float>(m_.centre()));
      unrolled<chunks>([&](auto c) {
        unrolled<L::parts>([&](auto j) {
          unrolled<4>([&](auto byte) {
            I sum = wide[c.value][j.value][byte.value % 2];
            sum = byte.value < 2 ? V::and_(sum, halves) : V::template right<16>(sum);
            add(c, Index<byte.value * L::parts + j.value>{}, V::sub(V::to_float(sum), less), count, 0.0f);
          });
        });
      });
    }
  }

  // y[n ..] += scale * (sum - (zero - centre) * zero_factor) in so many lanes, as far as there are outputs.
  SLMC_INLINE void add_to(int64_t g, int64_t n, int lanes, F sum, float zero_factor, float centre) const {
    const int64_t left = m_.N - n;
    const int count = left < lanes ? static_cast<int>(left) : lanes;
    if (count <= 0) return;
    const int64_t at = g * m_.N + n;
    if (m_.zeros) {
      const F zero = V::sub(V::load_bytes_first(m_.zeros + at, count), V::set(centre));
      sum = V::fnma(zero, V::set(zero_factor), sum);
    }
    if (count == V::kLanes) {
      V::store(y_ + n, V::fma(V::load_halves(m_.scales + at), sum, V::load(y_ + n)));
    } else {
      const F before = V::load_first(y_ + n, count);
      V::store_first(y_ + n, V::fma(V::load_halves_first(m_.scales + at, count), sum, before), count);
    }
  }
};

// Outputs of the words first .. last.
inline void outputs_of(const EventMatrix& m, int64_t first, int64_t last, int64_t* from, int64_t* to) {
  *from = first * m.per_word();
  *to = last * m.per_word() < m.N ? last * m.per_word() : m.N;
}

template <typename V, int bits>
void multiply_events(const EventMatrix& m, const Events& e, float* y, int64_t first, int64_t last) {
  int64_t from, to;
  outputs_of(m, first, last, &from, &to);
  std::memset(y + from, 0, static_cast<size_t>(to - from) * sizeof(float));
  EventProduct<V, bits>(m, e, y, first, last).run(first, last);
  if (e.spike != 0 && e.spike != 1)
    for (int64_t n = from; n < to; ++n) y[n] *= e.spike;
}

}  // namespace
}  // namespace slmc
