// Graphs of a probe: chains of one kind of node, and one that only passes its states on.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "network.h"
#include "source.h"

namespace slmc::run {

// Bytes of a block that are rotated a little more in every repetition (exporters/artifact/blocks.py).
struct BlockTensor {
  size_t offset = 0, bytes = 0, segment = 0, step = 0;
};

// A data file: repetitions of a block, one after the other; it is removed at the end.
class ExpandedFile {
 public:
  // Raises Refusal where the block cannot be read, or there is no room for the file.
  ExpandedFile(const std::string& block, const std::vector<BlockTensor>& tensors, size_t repeats, std::string path);
  ~ExpandedFile();
  ExpandedFile(const ExpandedFile&) = delete;
  ExpandedFile& operator=(const ExpandedFile&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A chain, opened and run once. Its first input is fed; further ones are states, which stay where they are.
class Microbenchmark {
 public:
  // Raises Refusal: the graph is not sound, or its values are no numbers. `data_name`: of the file as the graph knows it.
  Microbenchmark(const std::string& graph, const std::string& data, const std::string& data_name, int threads);
  void run() { network_->run_fed(); }

 private:
  Contents graph_, data_;
  ModelRecord record_;
  std::vector<float> x_;
  std::unique_ptr<Network> network_;
};

// Calls of one token of a graph with inputs tokens, s0 .. and outputs logits, t0 .. [1, width].
class StateCalls {
 public:
  StateCalls(const std::string& graph, int64_t states, int64_t width);
  void run();

 private:
  Contents graph_;
  ModelRecord record_;
  std::unique_ptr<Network> network_;
};

}  // namespace slmc::run
