#include "vocabulary.h"

#include <algorithm>

#include "operator.h"

namespace slmc::run {
namespace {

constexpr int32_t kMostTokens = 1 << 22;

}  // namespace

void Vocabulary::add(std::string_view token, int32_t id) {
  if (id < 0 || id >= kMostTokens) throw Refusal("tokenizer.json: token id " + std::to_string(id) + " is not in 0 .. 4 million");
  if (static_cast<size_t>(id) >= spans_.size()) spans_.resize(static_cast<size_t>(id) + 1);
  spans_[static_cast<size_t>(id)] = {static_cast<uint32_t>(bytes_.size()), static_cast<uint32_t>(token.size()), true};
  bytes_ += token;
  longest_ = std::max(longest_, token.size());
}

void Vocabulary::finish() {
  size_t slots = 16;
  while (slots < spans_.size() * 2) slots *= 2;
  slots_.assign(slots, 0);
  for (int32_t id = 0; id < size(); ++id) {
    if (!spans_[static_cast<size_t>(id)].there) continue;
    size_t at = hash(token(id)) & (slots - 1);
    while (slots_[at] && token(slots_[at] - 1) != token(id)) at = (at + 1) & (slots - 1);
    slots_[at] = id + 1;
  }
}

int32_t Vocabulary::find(std::string_view token_) const {
  if (slots_.empty()) return kNoToken;
  size_t at = hash(token_) & (slots_.size() - 1);
  for (; slots_[at]; at = (at + 1) & (slots_.size() - 1))
    if (token(slots_[at] - 1) == token_) return slots_[at] - 1;
  return kNoToken;
}

std::string_view Vocabulary::token(int32_t id) const {
  if (id < 0 || id >= size()) return {};
  const Span& span = spans_[static_cast<size_t>(id)];
  return std::string_view(bytes_).substr(span.begin, span.size);
}

uint64_t Vocabulary::hash(std::string_view token) {
  uint64_t value = 0xcbf29ce484222325u;
  for (const char c : token) value = (value ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return value ^ value >> 29;
}

}  // namespace slmc::run
