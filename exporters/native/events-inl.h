// One token times an input-major matrix, for any vector type V: only the rows of inputs that are not zero are read.
//
// Per group of inputs and tile of outputs, sums stay in registers while the group's rows pass by:
//
//   any inputs    y[n] += scale * (sum (code - centre) x  -  (zero - centre) sum x)
//   spikes        y[n] += scale * (sum code  -  zero * count),   in integers; times the spike at the end
//
// Rows in use are far apart in memory, which no hardware foresees: they are asked for ahead. Spikes cost so little that
// memory sets the pace: a few rows at a time pass by from their beginning to their end, and sums lie in the first cache.
// Included by one file per instruction set, after its V.
#pragma once
#include <algorithm>

#include "event_rows-inl.h"
#include "panel_float-inl.h"

namespace slmc {
namespace {

template <typename V, int bits>
class EventProduct {
  using L = Layout<V, bits>;
  using F = typename V::F;
  using I = typename V::I;
  static constexpr int kBlockChunks = kBlockWords / V::kLanes;
  static constexpr int64_t kBlockOutputs = kBlockWords * L::per_lane;
  static constexpr int kSums = V::kRegisters / 2;
  static constexpr int kPlaces = L::per_lane < kSums ? L::per_lane : kSums;
  static constexpr int kChunks32 = kSums / kPlaces;
  static constexpr int kByteSums = 255 / ((1 << bits) - 1);  // codes that a byte can add up
  static_assert(kRunEvents * ((1 << bits) - 1) < 1 << 16);   // and half a word
  static constexpr int kSpikeRows = kByteSums < 8 ? 1 : 8;   // that pass by at once; what is left of them by pairs
  static constexpr int kBatch = kByteSums / kSpikeRows * kSpikeRows;
  static constexpr int kRangeChunks = kRangeWords / V::kLanes;

  // Sums of spikes, per chunk and part; those of half words are the even and the odd bytes'.
  struct Sums {
    alignas(64) uint8_t narrow[kRangeChunks][L::parts][L::low_bytes];
    alignas(64) uint8_t wide[kRangeChunks][L::parts][2][L::low_bytes];
  };

  const EventMatrix& m_;
  const Events& e_;
  float* y_;
  int32_t last_;  // the last input's place in the index
  int32_t ahead_ = kLeastAhead;
  Sums sums_;

 public:
  EventProduct(const EventMatrix& m, const Events& e, float* y) : m_(m), e_(e), y_(y), last_(e.first[m.groups] - 1) {}

  void run(int64_t first, int64_t last) {
    for (; first < last; first += kRangeWords) run_range(first, std::min(first + kRangeWords, last));
  }

 private:
  void run_range(int64_t first, int64_t last) {
    ahead_ = kLeastAhead;
    if (e_.spike != 0) ahead_ = std::max(ahead_, static_cast<int32_t>(kAheadBytes / ((last - first) * 4)));
    for (int64_t g = 0; e_.spike == 0 && g < m_.groups; ++g)
      ahead_ = std::max(ahead_, std::min(e_.first[g + 1] - e_.first[g], kRunEvents));
    ask_for_first_rows(first, last);
    const int64_t whole = m_.words() / kBlockWords * kBlockWords, end = std::min(last, whole);
    for (int64_t g = 0; g < m_.groups; ++g)
      for (int32_t i = e_.first[g]; i < e_.first[g + 1]; i += kRunEvents) {
        const Run run{g, i, std::min(i + kRunEvents, e_.first[g + 1])};
        if (e_.spike != 0) {
          sum_spikes<false>(first / V::kLanes, (end - first) / V::kLanes, kBlockWords, V::kLanes, run);
        } else {
          some<kChunks32>(first / V::kLanes, end / V::kLanes, run);
        }
        if (last > whole) rest(whole / V::kLanes, last - whole, run);
      }
  }

  void ask_for_first_rows(int64_t first, int64_t last) const {
    const int64_t high_bytes = (last - first) * 4 * L::high / L::low;
    for (int32_t i = 0; i < std::min(ahead_, last_ + 1); ++i) {
      const uint8_t* low = m_.codes + e_.index[i] * m_.row_bytes() + first * 4;
      const uint8_t* high = m_.high + e_.index[i] * m_.high_row_bytes() + first * 4 * L::high / L::low;
      for (int64_t at = 0; at < (last - first) * 4; at += 64) ahead(low + at);
      for (int64_t at = 0; at < high_bytes; at += 64) ahead(high + at);
    }
  }
  SLMC_INLINE int64_t far_later(int32_t i) const { return e_.index[std::min(i + kFarAhead, last_)]; }
  SLMC_INLINE int64_t later(int32_t i) const { return e_.index[std::min(i + ahead_, last_)]; }

  template <int chunks>
  void some(int64_t chunk, int64_t end, const Run& run) {
    for (; chunk + chunks <= end; chunk += chunks) tile<chunks, false>(chunk, kBlockWords, V::kLanes, run);
    if constexpr (chunks > 1) some<chunks / 2>(chunk, end, run);
  }

  // A last block of fewer words.
  void rest(int64_t chunk, int64_t words, const Run& run) {
    for (int64_t at = 0; at < words; at += V::kLanes, ++chunk) {
      const int lanes = static_cast<int>(std::min<int64_t>(words - at, V::kLanes));
      if (e_.spike != 0) {
        sum_spikes<true>(chunk, 1, words, lanes, run);
      } else {
        tile<1, true>(chunk, words, lanes, run);
      }
    }
  }

  // `places` outputs lie between one place of a word and the next.
  template <int chunks, bool tail>
  void tile(int64_t chunk, int64_t places, int lanes, const Run& run) {
    const int64_t g = run.group;
    Chunks<chunks * L::low_bytes, tail> low(m_.codes, m_.row_bytes(), chunk * L::low_bytes, m_.K);
    Chunks<chunks * L::high_bytes, tail> high(m_.high, m_.high_row_bytes(), chunk * L::high_bytes, m_.K);
    // chunks begin where a block does, or lie within one
    const int64_t first = chunk / kBlockChunks * kBlockOutputs, n = first + chunk % kBlockChunks * V::kLanes;
    const int64_t last = ((chunk + chunks - 1) / kBlockChunks + 1) * kBlockOutputs;
    const uint16_t* scales = m_.scales + g * m_.N + n;
    const bool plain = !tail && !m_.zeros && last <= m_.N;
    if (plain && g + 1 < m_.groups)
      for (int64_t i = first; i < last; i += 32) ahead(m_.scales + (g + 1) * m_.N + i);
    const auto add = [&](auto first_place, const F (*sums)[kPlaces]) SLMC_LAMBDA {
      const float sum_x = m_.zeros ? sum_of(e_, run) : 0;
      unrolled<chunks>([&](auto c) SLMC_LAMBDA {
        constexpr int64_t in_tile = c.value / kBlockChunks * kBlockOutputs + c.value % kBlockChunks * V::kLanes;
        constexpr int64_t from = in_tile + first_place.value * kBlockWords;
        if (!plain) {
          F copy[kPlaces];  // the sums themselves stay in registers
          unrolled<kPlaces>([&](auto p) SLMC_LAMBDA { copy[p.value] = sums[c.value][p.value]; });
          const int64_t to = n + in_tile + first_place.value * places;
          return add_places(g, to, places, lanes, kPlaces, copy, sum_x, static_cast<float>(m_.centre()));
        }
        unrolled<kPlaces>([&](auto p) SLMC_LAMBDA {
          float* y = y_ + n + from + p.value * kBlockWords;
          V::store(y, V::fma(V::load_halves(scales + from + p.value * kBlockWords), sums[c.value][p.value], V::load(y)));
        });
      });
    };
    sum_inputs<chunks, 0>(low, high, run, add);
    if constexpr (kPlaces < L::per_lane) sum_inputs<chunks, kPlaces>(low, high, run, add);
  }

  template <int chunks, int first_place, typename Low, typename High, typename Add>
  SLMC_INLINE void sum_inputs(Low& low, High& high, const Run& run, const Add& add) {
    F sums[chunks][kPlaces];
    unrolled<chunks>([&](auto c) SLMC_LAMBDA {
      unrolled<kPlaces>([&](auto p) SLMC_LAMBDA { sums[c.value][p.value] = V::zero(); });
    });
    for (int32_t i = run.begin; i < run.end; ++i) {
      const int64_t k = e_.index[i];
      const uint8_t* codes = low.row(k);
      const uint8_t* more = L::high ? high.row(k) : nullptr;
      if constexpr (first_place == 0) {
        low.ask(later(i));
        if constexpr (L::high > 0) high.ask(later(i));
      }
      const F x = V::set(e_.x[k]);
      unrolled<chunks>([&](auto c) SLMC_LAMBDA {
        typename V::template Words<bits> words;
        words.read(codes + c.value * L::low_bytes, more + c.value * L::high_bytes);
        unrolled<kPlaces>([&](auto p) SLMC_LAMBDA {
          sums[c.value][p.value] = words.template multiply<first_place + p.value>(x, sums[c.value][p.value]);
        });
      });
    }
    add(Index<first_place>{}, sums);
  }

  // Adds the codes of rows i .. i + rows - 1 to the sums of bytes, or begins these. The run's first rows ask for its
  // scales on their way, little by little: all at once they would keep rows waiting.
  template <int rows, bool tail>
  SLMC_INLINE void add_rows(int64_t chunk, int64_t chunks, int32_t i, bool begin, const Run& run) {
    const uint16_t* scales = i == run.begin ? m_.scales + run.group * m_.N + chunk / kBlockChunks * kBlockOutputs : nullptr;
    static_assert(!tail || rows == 1);  // which may need its one copy
    Chunks<L::low_bytes, tail> low(m_.codes, m_.row_bytes(), chunk * L::low_bytes, m_.K);
    Chunks<L::high_bytes, tail> high(m_.high, m_.high_row_bytes(), chunk * L::high_bytes, m_.K);
    const uint8_t *codes[rows], *more[rows], *low_later[rows], *far[rows], *high_later[rows];
    unrolled<rows>([&](auto r) SLMC_LAMBDA {
      const int64_t k = e_.index[i + r.value];
      codes[r.value] = low.row(k);
      more[r.value] = L::high ? high.row(k) : nullptr;
      far[r.value] = m_.codes + far_later(i + r.value) * m_.row_bytes() + chunk * L::low_bytes;
      low_later[r.value] = m_.codes + later(i + r.value) * m_.row_bytes() + chunk * L::low_bytes;
      high_later[r.value] = m_.high + later(i + r.value) * m_.high_row_bytes() + chunk * L::high_bytes;
    });
    for (int64_t c = 0; c < chunks; ++c) {
      I sums[L::parts];
      unrolled<L::parts>([&](auto j) SLMC_LAMBDA { sums[j.value] = V::load(sums_.narrow[c][j.value]); });
      if (begin) unrolled<L::parts>([&](auto j) SLMC_LAMBDA { sums[j.value] = V::set(int32_t{0}); });
      unrolled<rows>([&](auto r) SLMC_LAMBDA {
        if (c % kBlockChunks == 0) {
          ahead(low_later[r.value] + c * L::low_bytes);
          if (c * L::low_bytes < kBeginningBytes) beginning(far[r.value] + c * L::low_bytes);
          if constexpr (L::high > 0) ahead(high_later[r.value] + c * L::high_bytes);
        }
        I parts[L::parts];
        if constexpr (bits == 8) parts[0] = V::load(codes[r.value] + c * L::low_bytes);
        else V::template unpack<bits>(codes[r.value] + c * L::low_bytes, more[r.value] + c * L::high_bytes, parts);
        // bytes do not overflow, so whole words may be added
        unrolled<L::parts>([&](auto j) SLMC_LAMBDA { sums[j.value] = V::add(sums[j.value], parts[j.value]); });
      });
      if (!tail && scales && c % kBlockChunks == 0)
        for (int64_t n = 0; n < kBlockOutputs; n += 32) ahead(scales + c / kBlockChunks * kBlockOutputs + n);
      unrolled<L::parts>([&](auto j) SLMC_LAMBDA { V::store(sums_.narrow[c][j.value], sums[j.value]); });
    }
  }

  // Adds the sums of bytes to those of half words, or begins these.
  void widen(int64_t chunks, bool begin) {
    const I bytes = V::set(int32_t{0x00ff00ff});
    for (int64_t c = 0; c < chunks; ++c)
      unrolled<L::parts>([&](auto j) SLMC_LAMBDA {
        const I sums = V::load(sums_.narrow[c][j.value]);
        uint8_t(*wide)[L::low_bytes] = sums_.wide[c][j.value];
        const I even = V::and_(sums, bytes), odd = V::and_(V::template right<8>(sums), bytes);
        V::store(wide[0], begin ? even : V::add(V::load(wide[0]), even));
        V::store(wide[1], begin ? odd : V::add(V::load(wide[1]), odd));
      });
  }

  template <bool tail>
  void sum_spikes(int64_t chunk, int64_t chunks, int64_t places, int lanes, const Run& run) {
    for (int32_t begin = run.begin; begin < run.end; begin += kBatch) {
      const int32_t stop = std::min(begin + kBatch, run.end);
      int32_t i = begin;
      if constexpr (!tail && kSpikeRows > 1) {
        for (; i + kSpikeRows <= stop; i += kSpikeRows) add_rows<kSpikeRows, tail>(chunk, chunks, i, i == begin, run);
        for (; i + 2 <= stop; i += 2) add_rows<2, tail>(chunk, chunks, i, i == begin, run);
      }
      for (; i < stop; ++i) add_rows<1, tail>(chunk, chunks, i, i == begin, run);
      widen(chunks, begin == run.begin);
    }
    for (int64_t c = 0; c < chunks; ++c) add_spikes<tail>(chunk + c, sums_.wide[c], places, lanes, run);
  }

  // y += scale * (sum code - zero * count) for the outputs of one chunk.
  template <bool tail>
  SLMC_INLINE void add_spikes(int64_t chunk, const uint8_t (*wide)[2][L::low_bytes], int64_t places, int lanes,
                              const Run& run) const {
    const int64_t first = chunk / kBlockChunks * kBlockOutputs, n = first + chunk % kBlockChunks * V::kLanes;
    const bool plain = !tail && !m_.zeros && first + kBlockOutputs <= m_.N;
    const uint16_t* scales = m_.scales + run.group * m_.N + n;
    const float count = static_cast<float>(run.end - run.begin);
    const F less = V::set(m_.zeros ? 0.0f : count * static_cast<float>(m_.centre()));
    const auto sum_at = [&](int byte, int part) SLMC_LAMBDA {
      const I pair = V::load(wide[part][byte % 2]);
      const I code_sum = byte < 2 ? V::and_(pair, V::set(int32_t{0xffff})) : V::template right<16>(pair);
      return V::sub(V::to_float(code_sum), less);
    };
    if (!plain) {
      F sums[L::per_lane];
      for (int place = 0; place < L::per_lane; ++place) sums[place] = sum_at(place / L::parts, place % L::parts);
      return add_places(run.group, n, places, lanes, L::per_lane, sums, count, 0.0f);
    }
    unrolled<L::parts>([&](auto j) SLMC_LAMBDA {
      unrolled<4>([&](auto byte) SLMC_LAMBDA {
        constexpr int place = byte.value * L::parts + j.value;
        float* y = y_ + n + place * kBlockWords;
        V::store(y, V::fma(V::load_halves(scales + place * kBlockWords), sum_at(byte.value, j.value), V::load(y)));
      });
    });
  }

  // add_to for sums whose outputs lie `places` apart.
  SLMC_COLD void add_places(int64_t g, int64_t n, int64_t places, int lanes, int count, const F* sums,
                            float zero_factor, float centre) const {
    for (int i = 0; i < count; ++i) add_to(g, n + i * places, lanes, sums[i], zero_factor, centre);
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

template <typename V, int bits>
void multiply_events(const EventMatrix& m, const Events& e, float* y, int64_t first, int64_t last) {
  int64_t from, to;
  outputs_of(m, first, last, &from, &to);
  std::memset(y + from, 0, static_cast<size_t>(to - from) * sizeof(float));
  EventProduct<V, bits>(m, e, y).run(first, last);
  if (e.spike != 0 && e.spike != 1)
    for (int64_t n = from; n < to; ++n) y[n] *= e.spike;
}

}  // namespace
}  // namespace slmc
