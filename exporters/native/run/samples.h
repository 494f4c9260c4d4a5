// Times of many calls, and what is said of them.
#pragma once
#include <functional>
#include <vector>

namespace slmc::run {

// Microseconds, GB/s or bytes; `wait`: wall over CPU time meanwhile, 0 where not measured.
struct Sampled {
  double value = 0, wait = 0;
};

// Between neighbours, as numpy's: share 0.1 is the low decile, 0.5 the median.
double percentile(std::vector<double> samples, double share);

// Microseconds of one call among many: CPU time on one thread, wall time on several. The low decile; the mean where
// the process is held up all the time: some calls find their caches and others do not, and a token is a sum of both.
Sampled sampled(const std::function<void()>& call, int threads, double seconds);

// How long a process that goes on computing is stopped at a time, in microseconds, the middle one of all stops; 0 where it
// is stopped too seldom to tell.
Sampled pauses(double seconds);

// Gigabytes (1e9) per second of so many threads together, each reading a buffer of its own; the best of several turns.
double read_gbs_of(int threads, size_t bytes, int turns);

}  // namespace slmc::run
