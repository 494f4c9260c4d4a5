#include "prefixes.h"

#include <algorithm>

namespace slmc::run {

Prefixes::Prefixes(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {
  for (int32_t id = 0; id < vocabulary.size(); ++id)
    if (!vocabulary.token(id).empty() && vocabulary.find(vocabulary.token(id)) == id) sorted_.push_back(id);
  std::sort(sorted_.begin(), sorted_.end(), [&](int32_t a, int32_t b) { return vocabulary.token(a) < vocabulary.token(b); });
  size_t at = 0;
  for (uint32_t byte = 0; byte <= 256; ++byte) {
    while (at < sorted_.size() && static_cast<uint8_t>(vocabulary.token(sorted_[at])[0]) < byte) ++at;
    first_[byte] = static_cast<uint32_t>(at);
  }
}

Prefixes::Place Prefixes::within(Place place, std::string_view head) const {
  for (const char c : head) place = narrowed(place, static_cast<uint8_t>(c));
  return place;
}

// The tokens whose next byte is this one; those that have no next byte come first.
Prefixes::Place Prefixes::narrowed(Place place, uint8_t byte) const {
  if (place.matched == 0) return {first_[byte], first_[byte + 1], 1};
  const auto next = [&](int32_t id) {
    const std::string_view token = vocabulary_.token(id);
    return token.size() > place.matched ? static_cast<int>(static_cast<uint8_t>(token[place.matched])) : -1;
  };
  const auto begin = sorted_.begin() + place.begin, end = sorted_.begin() + place.end;
  const auto low = std::partition_point(begin, end, [&](int32_t id) { return next(id) < byte; });
  const auto high = std::partition_point(low, end, [&](int32_t id) { return next(id) == byte; });
  return {static_cast<uint32_t>(low - sorted_.begin()), static_cast<uint32_t>(high - sorted_.begin()), place.matched + 1};
}

}  // namespace slmc::run
