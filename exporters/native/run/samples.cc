#include "samples.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <thread>

#include "machine.h"

namespace slmc::run {
namespace {

constexpr size_t kLeastSamples = 5, kMostSamples = 1000;
constexpr double kHeldUp = 2;  // wall over CPU time of a process that gets less than half of a core
constexpr double kLeastStopMs = 0.5;  // shorter ones are interrupts
constexpr size_t kLeastStops = 3;
constexpr size_t kLeastReadBytes = size_t{1} << 24, kLeastBuffer = 4096;

int32_t bits_of(const std::vector<int32_t>& buffer) {
  int32_t bits = 0;
  for (const int32_t value : buffer) bits |= value;
  asm volatile("" : : "r"(bits) : "memory");
  return bits;
}

// One thread's share of a turn, in gigabytes per second, behind a gate that opens when all have come.
double read_rate(const std::vector<int32_t>& buffer, size_t passes, std::atomic<int>* missing) {
  bits_of(buffer);
  for (missing->fetch_sub(1); missing->load() > 0;) std::this_thread::yield();
  const double began = now_ms().wall;
  for (size_t pass = 0; pass < passes; ++pass) bits_of(buffer);
  return static_cast<double>(passes * buffer.size() * sizeof(int32_t)) / 1e6 / std::max(now_ms().wall - began, 1e-6);
}

}  // namespace

double percentile(std::vector<double> samples, double share) {
  std::sort(samples.begin(), samples.end());
  const double at = share * static_cast<double>(samples.size() - 1), below = std::floor(at);
  const auto low = static_cast<size_t>(below);
  const size_t high = std::min(low + 1, samples.size() - 1);
  return samples[low] + (at - below) * (samples[high] - samples[low]);
}

Sampled sampled(const std::function<void()>& call, int threads, double seconds) {
  const auto clock_ms = [&] { return threads == 1 ? now_ms().cpu : now_ms().wall; };
  call();
  call();
  std::vector<double> samples;
  double sum = 0;
  const double began = now_ms().wall, end = began + seconds * 1e3;
  while (samples.size() < kLeastSamples || (samples.size() < kMostSamples && now_ms().wall < end)) {
    const double start = clock_ms();
    call();
    samples.push_back(1e3 * (clock_ms() - start));
    sum += samples.back();
  }
  const double wait = threads == 1 ? 1e3 * (now_ms().wall - began) / std::max(sum, 1e-3) : 0;
  return {wait > kHeldUp ? sum / static_cast<double>(samples.size()) : percentile(samples, 0.1), wait};
}

Sampled pauses(double seconds) {
  std::vector<double> stops;
  const Timed began = now_ms();
  for (double last = began.wall, end = last + seconds * 1e3; last < end;) {
    const double now = now_ms().wall;
    if (now - last > kLeastStopMs) stops.push_back(1e3 * (now - last));
    last = now;
  }
  const Timed took = since_ms(began);
  return {stops.size() < kLeastStops ? 0 : percentile(stops, 0.5), took.wall / std::max(took.cpu, 1e-6)};
}

double read_gbs_of(int threads, size_t bytes, int turns) {
  const size_t size = std::max(bytes, kLeastBuffer);
  const std::vector<std::vector<int32_t>> buffers(static_cast<size_t>(threads), std::vector<int32_t>(size / sizeof(int32_t), 1));
  const size_t passes = std::max<size_t>(1, kLeastReadBytes / size);
  double best = 0;
  for (int turn = 0; turn < turns; ++turn) {
    std::vector<double> rates(buffers.size());
    std::atomic<int> missing{threads};
    std::vector<std::thread> others;
    for (size_t i = 1; i < buffers.size(); ++i)
      others.emplace_back([&, i] { rates[i] = read_rate(buffers[i], passes, &missing); });
    rates[0] = read_rate(buffers[0], passes, &missing);
    for (std::thread& other : others) other.join();
    double sum = 0;
    for (const double rate : rates) sum += rate;
    best = std::max(best, sum);
  }
  return best;
}

}  // namespace slmc::run
