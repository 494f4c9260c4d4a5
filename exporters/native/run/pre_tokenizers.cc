// Where tokens may not reach across. The patterns of known tokenizers are scanners written by hand: each finds what its
// regular expression does.
#include <algorithm>

#include "pieces.h"
#include "unicode.h"
#include "utf8.h"

namespace slmc::run {
namespace {

enum Class : uint8_t { kLetter, kNumber, kSpace, kOther };

struct Character {
  uint32_t code;
  uint32_t bytes;
  Class kind;
};

Class class_of(uint32_t code) {
  if (code < 0x80) {
    if ((code >= 'a' && code <= 'z') || (code >= 'A' && code <= 'Z')) return kLetter;
    if (code >= '0' && code <= '9') return kNumber;
    return code == ' ' || (code >= 9 && code <= 13) ? kSpace : kOther;
  }
  return is_letter(code) ? kLetter : is_number(code) ? kNumber : is_space(code) ? kSpace : kOther;
}

// The text of one piece, character by character.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  bool end(size_t at) const { return at >= text_.size(); }
  Character at(size_t place) const {
    const Decoded found = decode_utf8(text_, place);
    return {found.code, found.bytes, found.valid ? class_of(found.code) : kOther};
  }
  bool is(size_t place, Class kind) const { return !end(place) && at(place).kind == kind; }
  bool line_break(size_t place) const { return !end(place) && (text_[place] == '\r' || text_[place] == '\n'); }
  // Behind as many characters of the class as there are, `most` at most.
  size_t run(size_t place, Class kind, size_t most = SIZE_MAX) const {
    for (size_t count = 0; count < most && is(place, kind); ++count) place += at(place).bytes;
    return place;
  }
  size_t line_breaks(size_t place) const {
    while (line_break(place)) ++place;
    return place;
  }
  // Behind 's, 't, 're, 've, 'm, 'll or 'd; `place` where there is none.
  size_t contraction(size_t place, bool any_case) const {
    if (end(place) || text_[place] != '\'') return place;
    const auto letter = [&](size_t i) -> char {
      if (i >= text_.size()) return 0;
      return any_case && text_[i] >= 'A' && text_[i] <= 'Z' ? static_cast<char>(text_[i] + 32) : text_[i];
    };
    const char one = letter(place + 1), two = letter(place + 2);
    if (any_case && text_.compare(place + 1, 2, "\xc5\xbf") == 0) return place + 3;  // long s, whose capital is S too
    if (one == 's' || one == 't' || one == 'm' || one == 'd') return place + 2;
    if ((one == 'r' && two == 'e') || (one == 'v' && two == 'e') || (one == 'l' && two == 'l')) return place + 3;
    return place;
  }
  // \s+(?!\S)|\s+ : all white space, but its last character where something follows.
  size_t spaces(size_t place) const {
    size_t last = place, after = place;
    while (is(after, kSpace)) last = after, after += at(after).bytes;
    return end(after) || last == place ? after : last;
  }

 private:
  std::string_view text_;
};

// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t gpt2(const Scanner& text, size_t at) {
  const size_t contracted = text.contraction(at, false);
  if (contracted != at) return contracted;
  const size_t word = !text.end(at) && text.at(at).code == ' ' ? at + 1 : at;
  for (const Class kind : {kLetter, kNumber, kOther})
    if (text.is(word, kind)) return text.run(word, kind);
  return text.spaces(at);
}

// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|
// \s+(?!\S)|\s+
template <size_t digits>
size_t llama3(const Scanner& text, size_t at) {
  const size_t contracted = text.contraction(at, true);
  if (contracted != at) return contracted;
  const Character first = text.at(at);
  if (first.kind == kLetter) return text.run(at, kLetter);
  if (first.kind != kNumber && !text.line_break(at) && text.is(at + first.bytes, kLetter))
    return text.run(at + first.bytes, kLetter);
  if (first.kind == kNumber) return text.run(at, kNumber, digits);
  const size_t symbols = first.code == ' ' ? at + 1 : at;
  if (text.is(symbols, kOther)) return text.line_breaks(text.run(symbols, kOther));
  size_t after_break = 0;
  for (size_t place = at; text.is(place, kSpace); place += text.at(place).bytes)
    if (text.line_break(place)) after_break = place + 1;
  return after_break ? after_break : text.spaces(at);
}

using Scan = size_t (*)(const Scanner& text, size_t at);

class Pattern final : public PreTokenizer {
 public:
  explicit Pattern(Scan scan) : scan_(scan) {}
  void split(Pieces* pieces, bool) const override {
    std::vector<Pieces::Range> found;
    found.reserve(pieces->text.size() / 4 + 1);
    for (size_t i = 0; i < pieces->ranges.size(); ++i) {
      const std::string_view piece = (*pieces)[i];
      const size_t begin = pieces->ranges[i].begin;
      const Scanner text(piece);
      for (size_t at = 0; at < piece.size();) {
        const size_t next = std::max(scan_(text, at), at + 1);
        found.push_back({begin + at, begin + next});
        at = next;
      }
    }
    pieces->ranges = std::move(found);
  }

 private:
  Scan scan_;
};

// Puts a space before pieces that begin without one.
class PrefixSpace final : public PreTokenizer {
 public:
  void split(Pieces* pieces, bool) const override {
    std::string text;
    std::vector<Pieces::Range> ranges;
    for (size_t i = 0; i < pieces->ranges.size(); ++i) {
      const std::string_view piece = (*pieces)[i];
      const size_t begin = text.size();
      if (!piece.empty() && piece[0] != ' ') text += ' ';
      text += piece;
      ranges.push_back({begin, text.size()});
    }
    pieces->text = std::move(text);
    pieces->ranges = std::move(ranges);
  }
};

// Cuts wherever the kind of character changes or, for kinds that stand alone, at every character; drops kind 0.
template <typename Kind>
class ByKind final : public PreTokenizer {
 public:
  explicit ByKind(Kind kind) : kind_(kind) {}
  void split(Pieces* pieces, bool) const override {
    std::vector<Pieces::Range> found;
    for (size_t i = 0; i < pieces->ranges.size(); ++i) {
      const std::string_view piece = (*pieces)[i];
      const size_t begin = pieces->ranges[i].begin;
      int before = 0;
      for (size_t at = 0; at < piece.size();) {
        const Decoded c = decode_utf8(piece, at);
        const int kind = kind_(c.code);
        if (kind > 0 && (kind != before || kind == kAlone)) found.push_back({begin + at, begin + at});
        if (kind > 0) found.back().end = begin + at + c.bytes;
        before = kind;
        at += c.bytes;
      }
    }
    pieces->ranges = std::move(found);
  }
  static constexpr int kAlone = 9;

 private:
  Kind kind_;
};

template <typename Kind>
std::unique_ptr<PreTokenizer> by_kind(Kind kind) {
  return std::make_unique<ByKind<Kind>>(kind);
}

bool ascii_punctuation(uint32_t c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

int bert_kind(uint32_t c) { return is_space(c) ? 0 : ascii_punctuation(c) || is_punctuation(c) ? 9 : 1; }
int word_kind(uint32_t c) { return is_space(c) ? 0 : is_word(c) ? 1 : 2; }
int space_kind(uint32_t c) { return is_space(c) ? 0 : 1; }
int punctuation_kind(uint32_t c) { return ascii_punctuation(c) || is_punctuation(c) ? 9 : 1; }
int digit_kind(uint32_t c) { return is_number(c) ? 9 : 1; }
int digits_kind(uint32_t c) { return is_number(c) ? 2 : 1; }

// Spaces become a mark, before which pieces are cut.
class Metaspace final : public PreTokenizer {
 public:
  explicit Metaspace(const JsonValue& json) : mark_(json["replacement"].text()) {
    scheme_ = json["prepend_scheme"].null() ? "always" : json["prepend_scheme"].text();
    if (!json["add_prefix_space"].null() && !json["add_prefix_space"].boolean()) scheme_ = "never";
    splits_ = json["split"].null() || json["split"].boolean();
  }
  void split(Pieces* pieces, bool first) const override {
    std::string text;
    std::vector<Pieces::Range> ranges;
    for (size_t i = 0; i < pieces->ranges.size(); ++i) {
      std::string marked;
      for (const char c : (*pieces)[i]) c == ' ' ? marked += mark_ : marked += c;
      const bool wanted = scheme_ == "always" || (scheme_ == "first" && first && i == 0);
      if (wanted && marked.compare(0, mark_.size(), mark_) != 0) marked = mark_ + marked;
      size_t begin = text.size(), from = 0;
      text += marked;
      for (size_t at = marked.find(mark_, 1); splits_ && at != std::string::npos; at = marked.find(mark_, at + 1)) {
        if (at > from) ranges.push_back({begin + from, begin + at});
        from = at;
      }
      if (from < marked.size()) ranges.push_back({begin + from, begin + marked.size()});
    }
    pieces->text = std::move(text);
    pieces->ranges = std::move(ranges);
  }

 private:
  std::string mark_, scheme_;
  bool splits_ = true;
};

class Sequence final : public PreTokenizer {
 public:
  void add(std::unique_ptr<PreTokenizer> part) {
    if (part) parts_.push_back(std::move(part));
  }
  void split(Pieces* pieces, bool first) const override {
    for (const auto& part : parts_) part->split(pieces, first);
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> parts_;
};

// Every character is a piece.
class Characters final : public PreTokenizer {
 public:
  void split(Pieces* pieces, bool) const override {
    std::vector<Pieces::Range> found;
    for (const Pieces::Range range : pieces->ranges)
      for (size_t at = range.begin; at < range.end;) {
        const size_t end = at + decode_utf8(pieces->text, at).bytes;
        found.push_back({at, end});
        at = end;
      }
    pieces->ranges = std::move(found);
  }
};

constexpr const char* kAnyCharacter[] = {"(?m:.)", "[\\s\\S]"};
constexpr const char kContractions[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}";
constexpr const char kBehind[] = "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
constexpr const char kGpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

std::unique_ptr<PreTokenizer> read_split(const JsonValue& json) {
  const JsonValue regex = json["pattern"]["Regex"];
  const std::string pattern = regex.is_text() ? regex.text() : "";
  const bool isolated = json["behavior"].text() == "Isolated" && !json["invert"].boolean();
  const std::string begin = kContractions, end = kBehind;
  if (isolated && pattern == begin + "{1,3}" + end) return std::make_unique<Pattern>(llama3<3>);
  if (isolated && pattern == begin + end) return std::make_unique<Pattern>(llama3<1>);
  if (isolated && pattern == kGpt2) return std::make_unique<Pattern>(gpt2);
  for (const char* every : kAnyCharacter)
    if (isolated && pattern == every) return std::make_unique<Characters>();
  throw Refusal("tokenizer.json: slmc-run does not know the pattern " + (pattern.empty() ? "of Split" : pattern));
}

std::unique_ptr<PreTokenizer> read_byte_level(const JsonValue& json, bool* bytes) {
  *bytes = true;
  auto parts = std::make_unique<Sequence>();
  if (json["add_prefix_space"].boolean()) parts->add(std::make_unique<PrefixSpace>());
  if (json["use_regex"].null() || json["use_regex"].boolean()) parts->add(std::make_unique<Pattern>(gpt2));
  return parts;
}

}  // namespace

std::unique_ptr<PreTokenizer> read_pre_tokenizer(const JsonValue& json, bool* bytes) {
  if (json.null()) return nullptr;
  const std::string type = json["type"].text();
  if (type == "Sequence") {
    auto parts = std::make_unique<Sequence>();
    json["pretokenizers"].each([&](const JsonValue& part) { parts->add(read_pre_tokenizer(part, bytes)); });
    return parts;
  }
  if (type == "ByteLevel") return read_byte_level(json, bytes);
  if (type == "Split") return read_split(json);
  if (type == "Metaspace") return std::make_unique<Metaspace>(json);
  if (type == "Digits") return json["individual_digits"].boolean() ? by_kind(digit_kind) : by_kind(digits_kind);
  if (type == "BertPreTokenizer") return by_kind(bert_kind);
  if (type == "Whitespace") return by_kind(word_kind);
  if (type == "WhitespaceSplit") return by_kind(space_kind);
  if (type == "Punctuation" && (json["behavior"].null() || json["behavior"].text() == "Isolated"))
    return by_kind(punctuation_kind);
  throw Refusal("tokenizer.json: slmc-run does not know the pre-tokenizer " + type);
}

}  // namespace slmc::run
