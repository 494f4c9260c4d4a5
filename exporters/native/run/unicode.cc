#include "unicode.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "unicode_tables.h"
#include "utf8.h"

namespace slmc::run {
namespace {

constexpr uint32_t kHangul = 0xac00, kLeading = 0x1100, kVowel = 0x1161, kTrailing = 0x11a7;
constexpr uint32_t kVowels = 21, kTrailings = 28, kLeadings = 19, kSyllables = kLeadings * kVowels * kTrailings;
constexpr uint32_t kByte = 0x80000000;  // a byte that belongs to no code point, among code points

template <size_t size>
bool within(const uint32_t (&table)[size], uint32_t code) {
  const size_t after = std::upper_bound(std::begin(table), std::end(table), code) - std::begin(table);
  return after % 2 == 1 || (after > 0 && table[after - 1] == code);
}

// The row that begins with `code` in a table of rows of `width`, or null.
template <size_t size>
const uint32_t* row(const uint32_t (&table)[size], size_t width, uint32_t code) {
  size_t first = 0, last = size / width;
  while (first < last) {
    const size_t middle = (first + last) / 2;
    if (table[middle * width] < code) first = middle + 1;
    else last = middle;
  }
  return first < size / width && table[first * width] == code ? table + first * width : nullptr;
}

uint32_t combining_class(uint32_t code) {
  const uint32_t* found = code < 0x300 || code >= kByte ? nullptr : row(kCombining, 2, code);
  return found ? found[1] : 0;
}

void decompose(uint32_t code, std::vector<uint32_t>* out) {
  if (code - kHangul < kSyllables) {
    const uint32_t index = code - kHangul, trailing = index % kTrailings;
    out->push_back(kLeading + index / (kVowels * kTrailings));
    out->push_back(kVowel + index / kTrailings % kVowels);
    if (trailing) out->push_back(kTrailing + trailing);
    return;
  }
  const uint32_t* found = code < 0xc0 || code >= kByte ? nullptr : row(kDecompositions, 3, code);
  if (!found) return out->push_back(code);
  decompose(found[1], out);
  if (found[2]) decompose(found[2], out);
}

std::vector<uint32_t> decomposed_codes(std::string_view text) {
  std::vector<uint32_t> codes;
  codes.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Decoded found = decode_utf8(text, at);
    if (found.valid) decompose(found.code, &codes);
    else for (uint32_t i = 0; i < found.bytes; ++i) codes.push_back(kByte | static_cast<uint8_t>(text[at + i]));
    at += found.bytes;
  }
  for (size_t i = 0; i < codes.size(); ++i) {  // marks of one letter in the order of their classes
    size_t end = i;
    while (end < codes.size() && combining_class(codes[end])) ++end;
    if (end > i + 1)
      std::stable_sort(codes.begin() + static_cast<ptrdiff_t>(i), codes.begin() + static_cast<ptrdiff_t>(end),
                       [](uint32_t a, uint32_t b) { return combining_class(a) < combining_class(b); });
    if (end > i) i = end - 1;
  }
  return codes;
}

// What two code points compose to, or 0.
uint32_t composite(uint32_t a, uint32_t b) {
  if (a - kLeading < kLeadings && b - kVowel < kVowels)
    return kHangul + ((a - kLeading) * kVowels + (b - kVowel)) * kTrailings;
  if (a - kHangul < kSyllables && (a - kHangul) % kTrailings == 0 && b - kTrailing - 1 < kTrailings - 1)
    return a + (b - kTrailing);
  struct Pair {
    uint32_t a, b, code;
    bool operator<(const Pair& other) const { return a != other.a ? a < other.a : b < other.b; }
  };
  static const std::vector<Pair> pairs = [] {
    std::vector<Pair> found;
    for (size_t i = 0; i < std::size(kDecompositions); i += 3)
      if (kDecompositions[i + 2] && !std::binary_search(std::begin(kNotComposed), std::end(kNotComposed), kDecompositions[i]))
        found.push_back({kDecompositions[i + 1], kDecompositions[i + 2], kDecompositions[i]});
    std::sort(found.begin(), found.end());
    return found;
  }();
  const auto at = std::lower_bound(pairs.begin(), pairs.end(), Pair{a, b, 0});
  return at != pairs.end() && at->a == a && at->b == b ? at->code : 0;
}

std::string encoded(const std::vector<uint32_t>& codes) {
  std::string out;
  for (const uint32_t code : codes) {
    if (code >= kByte) out.push_back(static_cast<char>(code & 255));
    else append_utf8(&out, code);
  }
  return out;
}

bool plain(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

}  // namespace

bool is_letter(uint32_t code) { return within(kLetters, code); }
bool is_number(uint32_t code) { return within(kNumbers, code); }
bool is_mark(uint32_t code) { return within(kMarks, code); }
bool is_punctuation(uint32_t code) { return within(kPunctuation, code); }
bool is_other(uint32_t code) { return within(kOthers, code); }
bool is_word(uint32_t code) { return within(kWords, code); }
bool is_space(uint32_t code) { return within(kSpaces, code); }

uint32_t lower_case(uint32_t code) {
  if (code < 0x80) return code >= 'A' && code <= 'Z' ? code + 32 : code;
  const uint32_t* found = row(kLower, 2, code);
  return found ? found[1] : code;
}

std::string decomposed(std::string_view text) {
  return plain(text) ? std::string(text) : encoded(decomposed_codes(text));
}

std::string composed(std::string_view text) {
  if (plain(text)) return std::string(text);
  std::vector<uint32_t> codes = decomposed_codes(text), out;
  size_t starter = SIZE_MAX;
  uint32_t last_class = 0;
  for (const uint32_t code : codes) {
    const uint32_t own = combining_class(code);
    const bool blocked = starter == SIZE_MAX || (last_class != 0 && last_class >= own) ||
                         (last_class == 0 && starter + 1 != out.size());
    const uint32_t one = blocked || code >= kByte || out[starter] >= kByte ? 0 : composite(out[starter], code);
    if (one) {
      out[starter] = one;
      continue;
    }
    if (own == 0) starter = out.size();
    last_class = own;
    out.push_back(code);
  }
  return encoded(out);
}

std::string lowered(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size();) {
    const Decoded found = decode_utf8(text, at);
    if (!found.valid) out.append(text.substr(at, found.bytes));
    else if (found.code == 0x130) out += "i\xcc\x87";  // the one letter whose lower case is two code points
    else append_utf8(&out, lower_case(found.code));
    at += found.bytes;
  }
  return out;
}

}  // namespace slmc::run
