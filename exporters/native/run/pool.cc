#include "pool.h"

namespace slmc::run {
namespace {

constexpr int kSpins = 4000;  // some ten microseconds, about what waking a thread takes

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  asm volatile("yield");
#endif
}

}  // namespace

Pool::Pool(int threads) {
  for (int i = 1; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

Pool::~Pool() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Pool::run(size_t tasks, void (*run)(void*, size_t), void* data) {
  if (threads_.empty() || tasks > UINT32_MAX) {
    for (size_t i = 0; i < tasks; ++i) run(data, i);
    return;
  }
  run_ = run;
  data_ = data;
  unfinished_.store(tasks, std::memory_order_relaxed);
  const uint32_t mine = generation() + 1;
  left_.store(static_cast<uint64_t>(mine) << 32 | tasks, std::memory_order_seq_cst);
  if (asleep_.load(std::memory_order_seq_cst) > 0) {
    { const std::lock_guard<std::mutex> lock(mutex_); }
    wake_.notify_all();
  }
  share(mine);
  for (int spins = 0; unfinished_.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins < kSpins) pause();
    else std::this_thread::yield();
  }
}

bool Pool::share(uint32_t generation) {
  bool any = false;
  uint64_t left = left_.load(std::memory_order_acquire);
  while (static_cast<uint32_t>(left >> 32) == generation && static_cast<uint32_t>(left) != 0) {
    if (!left_.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel)) continue;
    run_(data_, static_cast<uint32_t>(left) - 1);
    unfinished_.fetch_sub(1, std::memory_order_acq_rel);
    any = true;
    left = left_.load(std::memory_order_acquire);
  }
  return any;
}

void Pool::work() {
  uint32_t seen = 0;
  while (!ended_) {
    for (int spins = 0; spins < kSpins && generation() == seen && !ended_; ++spins) pause();
    if (generation() == seen) {
      std::unique_lock<std::mutex> lock(mutex_);
      asleep_.fetch_add(1, std::memory_order_seq_cst);
      wake_.wait(lock, [&] { return ended_ || generation() != seen; });
      asleep_.fetch_sub(1, std::memory_order_relaxed);
    }
    seen = generation();
    share(seen);
  }
}

}  // namespace slmc::run
