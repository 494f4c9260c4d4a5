// Memory for the values between nodes, by liveness: what one value leaves the next one takes, and after the first run of
// a length nothing is allocated any more.
#pragma once
#include <cstddef>
#include <memory>
#include <vector>

namespace slmc::run {

struct Block {
  char* data = nullptr;
  size_t capacity = 0;
  bool taken = false;
};

class Blocks {
 public:
  Blocks() = default;
  Blocks(const Blocks&) = delete;
  Blocks& operator=(const Blocks&) = delete;
  ~Blocks();

  // Of at least `size` bytes, aligned to 64: the smallest that fits, else the largest one grown.
  Block* take(size_t size);
  void release_all();

 private:
  std::vector<std::unique_ptr<Block>> blocks_;
};

}  // namespace slmc::run
