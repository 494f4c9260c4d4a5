// All tokens that a text begins with, by the sorted list of their bytes.
#pragma once
#include <string_view>
#include <vector>

#include "vocabulary.h"

namespace slmc::run {

class Prefixes {
 public:
  explicit Prefixes(const Vocabulary& vocabulary);

  // The tokens that begin with `head`, as a place to search from.
  struct Place {
    uint32_t begin = 0, end = 0;  // of the sorted tokens
    size_t matched = 0;           // bytes that all of them begin with
  };
  Place all() const { return {0, static_cast<uint32_t>(sorted_.size()), 0}; }
  Place within(Place place, std::string_view head) const;

  // Calls each(bytes, id) for every token of the place that the text goes on with, from short to long.
  template <typename Each>
  void each(Place place, std::string_view text, const Each& each) const {
    for (size_t i = 0; i < text.size(); ++i) {
      place = narrowed(place, static_cast<uint8_t>(text[i]));
      if (place.begin == place.end) return;
      if (vocabulary_.token(sorted_[place.begin]).size() == place.matched) each(i + 1, sorted_[place.begin]);
    }
  }

 private:
  Place narrowed(Place place, uint8_t byte) const;

  const Vocabulary& vocabulary_;
  std::vector<int32_t> sorted_;
  uint32_t first_[257];  // where the tokens of each first byte begin
};

}  // namespace slmc::run
