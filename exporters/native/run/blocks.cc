#include "blocks.h"

#include <cstdlib>
#include <new>

namespace slmc::run {
namespace {

constexpr size_t kAlignment = 64;

}  // namespace

Blocks::~Blocks() {
  for (const auto& block : blocks_) std::free(block->data);
}

Block* Blocks::take(size_t size) {
  size = (size + kAlignment) / kAlignment * kAlignment;
  Block *fitting = nullptr, *largest = nullptr;
  for (const auto& block : blocks_) {
    if (block->taken) continue;
    if (block->capacity >= size && (!fitting || block->capacity < fitting->capacity)) fitting = block.get();
    if (!largest || block->capacity > largest->capacity) largest = block.get();
  }
  if (!fitting) {
    if (!largest) {
      blocks_.push_back(std::make_unique<Block>());
      largest = blocks_.back().get();
    }
    std::free(largest->data);
    largest->capacity = 0;
    largest->data = static_cast<char*>(std::aligned_alloc(kAlignment, size));
    if (!largest->data) throw std::bad_alloc();
    largest->capacity = size;
    fitting = largest;
  }
  fitting->taken = true;
  return fitting;
}

void Blocks::release_all() {
  for (const auto& block : blocks_) block->taken = false;
}

}  // namespace slmc::run
