// What slmc-run does beside writing text.
#pragma once
#include <string>
#include <vector>

#include "artifact.h"

namespace slmc::run {

struct BenchOptions {
  size_t prompt = 64, tokens = 128, rounds = 5;
  int threads = 1;
  double load_ms = 0;
};

// One JSON document on stdout, with llama-bench's columns.
void bench(Artifact* artifact, const BenchOptions& options);

// Perplexity and top-1 over tokens, and every logit into a file if one is named.
void evaluate(Artifact* artifact, const std::vector<int32_t>& ids, const std::string& logits_file);

// A class with its score and share per line, the likeliest one alone before them.
void label(Artifact* artifact, const std::vector<int32_t>& ids);

// Little-endian int32 numbers of a file. Raises Refusal where it is none.
std::vector<int32_t> read_ids(const std::string& path);

// Resident memory at its peak, in bytes.
size_t peak_bytes();

}  // namespace slmc::run
