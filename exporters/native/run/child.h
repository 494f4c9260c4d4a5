// A program that is run, watched and ended.
#pragma once
#include <functional>
#include <string>
#include <vector>

namespace slmc::run {

struct Limits {
  double timeout_s = 0;
  int64_t memory_bytes = -1;  // -1: none
  int cores = -1;             // likewise
};

struct ChildEnd {
  int code = 0;  // negative: the signal that ended it
  std::string out, error;
  bool timed_out = false, over_limit = false, gone = false;  // gone: nobody waited any more, and the program was ended
  int64_t peak_bytes = 0;
};

// Runs a program with a text on its stdin. `wanted()` is asked now and then whether anybody still waits for it.
// Raises Refusal where it cannot be started.
ChildEnd run_child(const std::vector<std::string>& arguments, const std::string& text, const Limits& limits,
                const std::function<bool()>& wanted);

}  // namespace slmc::run
