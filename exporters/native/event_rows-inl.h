// The rows of an input-major matrix that a token's inputs have in use, as kernels read them and ask for them ahead.
#pragma once
#include "events.h"

namespace slmc {
namespace {

constexpr int32_t kRunEvents = 64;    // inputs whose sums are added to y together
constexpr int32_t kLeastAhead = 8;    // inputs between a prefetch and its use
constexpr int64_t kAheadBytes = 8192;  // of rows, likewise
constexpr int32_t kFarAhead = 16;  // inputs between their rows' beginnings being asked for and their use
constexpr int64_t kBeginningBytes = 128;
constexpr int64_t kRangeWords = 256;  // of a row; its sums stay in the first cache

SLMC_INLINE void ahead(const void* p) { __builtin_prefetch(p, 0, 3); }
// Into the second cache, whose own prefetcher goes on from there: the first has fewer lines on their way than memory
// needs to be kept busy.
SLMC_INLINE void beginning(const void* p) { __builtin_prefetch(p, 0, 2); }

// Inputs index[begin .. end) of one group.
struct Run {
  int64_t group;
  int32_t begin, end;
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
  // Has row k come nearer.
  SLMC_INLINE void ask(int64_t k) const {
    for (int i = 0; i < chunk_bytes; i += 64) ahead(plane_ + k * stride_ + i);
  }

 private:
  const uint8_t* plane_;
  int64_t stride_, rest_, safe_ = 0;
  alignas(64) uint8_t copy_[tail ? chunk_bytes + 1 : 1] = {};
};

// The sum of a run's inputs.
inline float sum_of(const Events& e, const Run& run) {
  float sum = 0;
  for (int32_t i = run.begin; i < run.end; ++i) sum += e.x[e.index[i]];
  return sum;
}

// Outputs of the words first .. last.
inline void outputs_of(const EventMatrix& m, int64_t first, int64_t last, int64_t* from, int64_t* to) {
  *from = first * m.per_word();
  *to = last * m.per_word() < m.N ? last * m.per_word() : m.N;
}

}  // namespace
}  // namespace slmc
