#include <algorithm>

#include "pieces.h"
#include "unicode.h"
#include "utf8.h"

namespace slmc::run {
namespace {

class Sequence final : public Normalizer {
 public:
  explicit Sequence(const JsonValue& list) {
    list.each([&](const JsonValue& one) {
      if (parts_.size() == 64) one.refuse("at most 64 normalizers");
      parts_.push_back(read_normalizer(one));
    });
  }
  std::string apply(std::string_view text) const override {
    std::string out(text);
    for (const auto& part : parts_)
      if (part) out = part->apply(out);
    return out;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

class Function final : public Normalizer {
 public:
  explicit Function(std::string (*function)(std::string_view)) : function_(function) {}
  std::string apply(std::string_view text) const override { return function_(text); }

 private:
  std::string (*function_)(std::string_view);
};

class Prepend final : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  std::string apply(std::string_view text) const override {
    return text.empty() ? std::string() : prefix_ + std::string(text);
  }

 private:
  std::string prefix_;
};

class Replace final : public Normalizer {
 public:
  Replace(std::string from, std::string to) : from_(std::move(from)), to_(std::move(to)) {}
  std::string apply(std::string_view text) const override {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const size_t found = text.find(from_, at);
      out.append(text.substr(at, found == std::string_view::npos ? found : found - at));
      if (found == std::string_view::npos) break;
      out += to_;
      at = found + from_.size();
    }
    return out;
  }

 private:
  std::string from_, to_;
};

// Two spaces and more become one text.
class ReplaceSpaces final : public Normalizer {
 public:
  explicit ReplaceSpaces(std::string to) : to_(std::move(to)) {}
  std::string apply(std::string_view text) const override {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find_first_not_of(' ', at), text.size());
      if (end - at >= 2) out += to_;
      else if (end == at) out += text[at];
      else out += ' ';
      at = std::max(end, at + 1);
    }
    return out;
  }

 private:
  std::string to_;
};

// White space at both ends.
class Strip final : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  std::string apply(std::string_view text) const override {
    size_t begin = 0, end = text.size();
    while (left_ && begin < end && is_space(decode_utf8(text, begin).code)) begin += decode_utf8(text, begin).bytes;
    while (right_ && end > begin) {
      size_t last = end - 1;
      while (last > begin && (static_cast<uint8_t>(text[last]) & 0xc0) == 0x80) --last;
      if (!is_space(decode_utf8(text, last).code)) break;
      end = last;
    }
    return std::string(text.substr(begin, end - begin));
  }

 private:
  bool left_, right_;
};

bool chinese(uint32_t c) {
  return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
         (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

std::string without_accents(std::string_view apart) {
  std::string out;
  for (size_t at = 0; at < apart.size();) {
    const Decoded found = decode_utf8(apart, at);
    if (!found.valid || !is_mark(found.code)) out.append(apart.substr(at, found.bytes));
    at += found.bytes;
  }
  return out;
}

class Bert final : public Normalizer {
 public:
  explicit Bert(const JsonValue& json)
      : clean_(json["clean_text"].boolean()), chinese_(json["handle_chinese_chars"].boolean()),
        lower_(json["lowercase"].boolean()),
        strip_(json["strip_accents"].null() ? lower_ : json["strip_accents"].boolean()) {}

  std::string apply(std::string_view text) const override {
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const Decoded found = decode_utf8(text, at);
      const uint32_t c = found.code;
      const bool white = c == '\t' || c == '\n' || c == '\r';
      const bool dropped = clean_ && (c == 0 || c == kReplacement || (!white && is_other(c)));
      const bool apart = chinese_ && chinese(c);
      if (apart) out += ' ';
      if (!dropped && clean_ && (white || is_space(c))) out += ' ';
      else if (!dropped) out.append(text.substr(at, found.bytes));
      if (apart) out += ' ';
      at += found.bytes;
    }
    if (strip_) out = without_accents(decomposed(out));
    return lower_ ? lowered(out) : out;
  }

 private:
  bool clean_, chinese_, lower_, strip_;
};

}  // namespace

std::unique_ptr<Normalizer> read_normalizer(const JsonValue& json) {
  if (json.null()) return nullptr;
  const std::string type = json["type"].text();
  if (type == "Sequence") return std::make_unique<Sequence>(json["normalizers"]);
  if (type == "NFC") return std::make_unique<Function>(composed);
  if (type == "NFD") return std::make_unique<Function>(decomposed);
  if (type == "Lowercase") return std::make_unique<Function>(lowered);
  if (type == "Prepend") return std::make_unique<Prepend>(json["prepend"].text());
  if (type == "BertNormalizer") return std::make_unique<Bert>(json);
  if (type == "Strip") return std::make_unique<Strip>(json["strip_left"].boolean(), json["strip_right"].boolean());
  const JsonValue regex = json["pattern"]["Regex"];
  if (type == "Replace" && regex.is_text() && regex.text() == " {2,}")
    return std::make_unique<ReplaceSpaces>(json["content"].text());
  if (type == "Replace" && json["pattern"]["String"].is_text() && !json["pattern"]["String"].text().empty())
    return std::make_unique<Replace>(json["pattern"]["String"].text(), json["content"].text());
  throw Refusal("tokenizer.json: slmc-run does not know the normalizer " + type);
}

}  // namespace slmc::run
