// Threads that share the tasks of one call at a time: they spin for some microseconds after one, then sleep.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace slmc::run {

class Pool {
 public:
  // Runs on `threads` threads, the caller's included.
  explicit Pool(int threads);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // run(data, 0) .. run(data, tasks - 1), in any order; returns when all are done. Not for several callers at once.
  void run(size_t tasks, void (*run)(void*, size_t), void* data);

 private:
  void work();
  bool share(uint32_t generation);
  uint32_t generation() const { return static_cast<uint32_t>(left_.load() >> 32); }

  // The call's number above, below how many of its tasks nobody has taken: taking one is a single exchange, so that a
  // thread that comes late cannot take one of the next call by mistake.
  std::atomic<uint64_t> left_{0};
  std::atomic<size_t> unfinished_{0};
  void (*run_)(void*, size_t) = nullptr;
  void* data_ = nullptr;
  std::atomic<bool> ended_{false};
  std::atomic<int> asleep_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> threads_;
};

}  // namespace slmc::run
