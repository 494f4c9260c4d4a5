// What operators that multiply by a matrix share: memory for one call, and tasks over output features.
#pragma once
#include "matrix.h"
#include "operator.h"

namespace slmc {

// This thread's memory, empty again: for one call, which does not call another.
inline Arena& call_arena() {
  static thread_local Arena arena;
  arena.reset();
  return arena;
}

// A product of this size takes one core some ten microseconds; waking a second for less does not pay.
constexpr int64_t kWorthThreads = 1 << 20;
constexpr int64_t kWorkPerTask = 1 << 18;

// Runs body(first, last) over the output features, in parallel where the product is large.
template <typename Body>
void over_features(const Call& call, int64_t N, int64_t K, int64_t tokens, const Body& body) {
  const int64_t tiles = (N + kRowTile - 1) / kRowTile;
  const int64_t work = N * K * tokens;
  if (work < kWorthThreads) return body(0, N);
  const int64_t wanted = work / kWorkPerTask;
  const int64_t per_task = wanted >= tiles ? 1 : (tiles + wanted - 1) / wanted;
  call.parallel((tiles + per_task - 1) / per_task, [&](size_t task) {
    const int64_t first = static_cast<int64_t>(task) * per_task * kRowTile;
    const int64_t last = first + per_task * kRowTile;
    body(first, last < N ? last : N);
  });
}

}  // namespace slmc
