// What a Fused node knows of its steps and of the values between them.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "operator.h"

namespace slmc {
namespace {

constexpr size_t kAlignment = 64;

// Pieces of memory that come back.
class Pieces {
 public:
  void free_all() {
    for (Piece& piece : pieces_) piece.taken = false;
  }

  // Of this size at least, aligned; `index` for giving it back.
  void* take(size_t size, int* index) {
    Piece* best = nullptr;  // the smallest that is large enough, else the largest
    for (Piece& piece : pieces_) {
      if (piece.taken) continue;
      const bool better = !best || (best->size < size ? piece.size > best->size : piece.size >= size && piece.size < best->size);
      if (better) best = &piece;
    }
    if (!best) best = &pieces_.emplace_back();
    if (best->size < size || !best->memory) {
      best->memory.reset();
      best->size = 0;
      best->memory.reset(new uint8_t[size + kAlignment]);
      best->size = size;
    }
    best->taken = true;
    *index = static_cast<int>(best - pieces_.data());
    const auto address = reinterpret_cast<uintptr_t>(best->memory.get());
    return best->memory.get() + (kAlignment - address % kAlignment);
  }

  void give_back(int index) { pieces_[index].taken = false; }

 private:
  struct Piece {
    std::unique_ptr<uint8_t[]> memory;
    size_t size = 0;
    bool taken = false;
  };
  std::vector<Piece> pieces_;
};

// What one call knows of its values.
struct Values {
  std::vector<Tensor> tensors;  // but for constants
  std::vector<int> pieces;  // that a value lies in, -1 for none
  Pieces memory;
};

Values& values_of_this_thread() {
  static thread_local Values values;
  return values;
}

// A step and its kernel.
struct Part {
  std::unique_ptr<Kernel> kernel;
  const Product* product = nullptr;
  std::vector<int> inputs;
  int made = 0;            // the number of its first output
  std::vector<int> dying;  // values that nothing reads after it
  size_t together = 1;     // products from here on that do not depend on one another
  size_t strips = 1;       // steps from here on that go through rows one by one
  bool local = false;      // whether only such steps read what it makes
};

// What a node knows of its values before any call.
struct Fixed {
  std::vector<Tensor> constants;  // data null where a value is none
  std::vector<int> given;         // which output of the node a value is, -1 for none
};

}  // namespace
}  // namespace slmc
