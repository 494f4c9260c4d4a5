// The command line of slmc-run.
#pragma once
#include <string>
#include <vector>

#include "commands.h"
#include "generation.h"

namespace slmc::run {

struct Options {
  std::string folder;
  std::string prompt = "The ", system, ids_file, eval_file, logits_file;
  std::string worker, visit;  // of slmc, over a pipe: answers one job; answers requests until stdin ends
  bool has_system = false, chat = false, no_stop = false, check = false, bench = false, ids = false, stats = false, serve = false, encode = false;
  size_t tokens = 128;
  int threads = 1;
  Sampling sampling;
  std::vector<std::string> stop;
  BenchOptions bench_options;
};

// Raises Refusal for what is not understood. Prints help and ends the process where it is asked for.
Options read_options(int count, char** arguments);

}  // namespace slmc::run
