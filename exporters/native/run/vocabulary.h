// Tokens by their bytes and by their ids, in two flat tables.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace slmc::run {

constexpr int32_t kNoToken = -1;

class Vocabulary {
 public:
  // Ids may come in any order and have gaps; the last of several tokens of one id or of equal bytes counts.
  void add(std::string_view token, int32_t id);
  // Once, after all were added.
  void finish();

  int32_t find(std::string_view token) const;
  std::string_view token(int32_t id) const;
  int32_t size() const { return static_cast<int32_t>(spans_.size()); }
  size_t longest() const { return longest_; }

 private:
  struct Span {
    uint32_t begin = 0, size = 0;
    bool there = false;
  };
  static uint64_t hash(std::string_view token);

  std::string bytes_;
  std::vector<Span> spans_;
  std::vector<int32_t> slots_;  // open addressing; ids + 1, 0 where empty
  size_t longest_ = 0;
};

}  // namespace slmc::run
