#include "json.h"

#include <cstdlib>

#include "utf8.h"

namespace slmc::run {
namespace {

constexpr int kDeepest = 64;
constexpr size_t kLongest = size_t{1} << 27;
constexpr uint32_t kMissing = UINT32_MAX;

bool digit(char c) { return c >= '0' && c <= '9'; }

int hex_digit(char c) {
  if (digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// The code unit of \uXXXX at `at`, or -1.
int32_t code_unit(std::string_view text, size_t at) {
  if (at + 6 > text.size() || text[at] != '\\' || text[at + 1] != 'u') return -1;
  int32_t unit = 0;
  for (size_t i = at + 2; i < at + 6; ++i) {
    const int digit = hex_digit(text[i]);
    if (digit < 0) return -1;
    unit = unit * 16 + digit;
  }
  return unit;
}

}  // namespace

Json::Json(std::string_view text, std::string what) : text_(text), what_(std::move(what)) {
  if (text.size() > kLongest) throw Refusal(what_ + ": more than 128 MB");
  if (text_.substr(0, 3) == "\xef\xbb\xbf") damaged("no byte order mark");
  read_value(0);
  skip_space();
  if (at_ != text_.size()) damaged("the end");
}

void Json::damaged(const char* expected) const {
  throw Refusal(what_ + ": not JSON at byte " + std::to_string(at_) + ", expected " + expected + "; copy the artifact again");
}

void Json::skip_space() {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) ++at_;
}

void Json::read_value(int depth) {
  if (depth > kDeepest) damaged("nesting of at most 64");
  skip_space();
  switch (peek()) {
    case '{': return read_container(depth, '}', kObject);
    case '[': return read_container(depth, ']', kList);
    case '"': return read_text();
    case 't': return read_word("true", kTrue);
    case 'f': return read_word("false", kFalse);
    case 'n': return read_word("null", kNull);
    default: return read_number();
  }
}

void Json::read_container(int depth, char close, Kind kind) {
  const size_t own = items_.size();
  items_.push_back({0, 0, 0, kind});
  ++at_;
  skip_space();
  uint32_t count = 0;
  for (; peek() != close; ++count) {
    if (count) {
      if (peek() != ',') damaged("',' or the closing bracket");
      ++at_;
    }
    if (kind == kObject) {
      skip_space();
      if (peek() != '"') damaged("a name");
      read_text();
      skip_space();
      if (peek() != ':') damaged("':'");
      ++at_;
    }
    read_value(depth + 1);
    skip_space();
  }
  ++at_;
  items_[own].begin = count;
  items_[own].next = static_cast<uint32_t>(items_.size());
}

void Json::read_text() {
  const size_t begin = ++at_;
  Kind kind = kPlainText;
  for (;; ++at_) {
    if (at_ >= text_.size() || static_cast<uint8_t>(text_[at_]) < 0x20) damaged("the end of a string");
    if (text_[at_] == '"') break;
    if (text_[at_] != '\\') continue;
    kind = kText;
    if (code_unit(text_, at_) >= 0) at_ += 5;
    else if (at_ + 1 < text_.size() && std::string_view("\"\\/bfnrt").find(text_[at_ + 1]) != std::string_view::npos) ++at_;
    else damaged("an escape that JSON knows");
  }
  const uint32_t next = static_cast<uint32_t>(items_.size()) + 1;
  items_.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(at_), next, kind});
  ++at_;
}

void Json::read_number() {
  const size_t begin = at_;
  const auto digits = [&] {
    if (!digit(peek())) damaged("a value");
    while (digit(peek())) ++at_;
  };
  if (peek() == '-') ++at_;
  if (peek() == '0') ++at_;
  else digits();
  if (peek() == '.') {
    ++at_;
    digits();
  }
  if (peek() == 'e' || peek() == 'E') {
    ++at_;
    if (peek() == '+' || peek() == '-') ++at_;
    digits();
  }
  const uint32_t next = static_cast<uint32_t>(items_.size()) + 1;
  items_.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(at_), next, kNumber});
}

void Json::read_word(const char* word, Kind kind) {
  const std::string_view expected(word);
  if (text_.substr(at_, expected.size()) != expected) damaged("a value");
  at_ += expected.size();
  items_.push_back({0, 0, static_cast<uint32_t>(items_.size()) + 1, kind});
}

std::string Json::decoded(const Item& item) const {
  const std::string_view raw = text_.substr(item.begin, item.end - item.begin);
  if (item.kind == kPlainText) return std::string(raw);
  std::string out;
  for (size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] != '\\') {
      out += raw[i];
      continue;
    }
    int32_t unit = code_unit(raw, i);
    if (unit < 0) {
      static constexpr std::string_view kNames = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
      out += kMeanings[kNames.find(raw[++i])];
      continue;
    }
    i += 5;
    if (unit >= 0xd800 && unit < 0xdc00) {
      const int32_t low = code_unit(raw, i + 1);
      if (low >= 0xdc00 && low < 0xe000) {
        unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
        i += 6;
      }
    }
    append_utf8(&out, unit >= 0xd800 && unit < 0xe000 ? 0xfffd : static_cast<uint32_t>(unit));
  }
  return out;
}

bool JsonValue::null() const { return index_ == kMissing || document_->items_[index_].kind == Json::kNull; }
bool JsonValue::is_object() const { return index_ != kMissing && document_->items_[index_].kind == Json::kObject; }
bool JsonValue::is_list() const { return index_ != kMissing && document_->items_[index_].kind == Json::kList; }
bool JsonValue::is_number() const { return index_ != kMissing && document_->items_[index_].kind == Json::kNumber; }
bool JsonValue::is_text() const {
  if (index_ == kMissing) return false;
  const Json::Kind kind = document_->items_[index_].kind;
  return kind == Json::kText || kind == Json::kPlainText;
}

void JsonValue::refuse(const char* expected) const {
  throw Refusal(path_ + ": expected " + expected + (index_ == kMissing ? ", found nothing" : ""));
}

std::string JsonValue::text() const {
  if (!is_text()) refuse("text");
  return document_->decoded(document_->items_[index_]);
}

double JsonValue::number() const {
  if (!is_number()) refuse("a number");
  const Json::Item& item = document_->items_[index_];
  const std::string text(document_->text_.substr(item.begin, item.end - item.begin));
  return std::strtod(text.c_str(), nullptr);
}

int64_t JsonValue::integer(int64_t least, int64_t most) const {
  const double value = number();
  if (!(value >= static_cast<double>(least) && value <= static_cast<double>(most)) ||
      value != static_cast<double>(static_cast<int64_t>(value)))
    throw Refusal(path_ + ": expected a whole number from " + std::to_string(least) + " to " + std::to_string(most));
  return static_cast<int64_t>(value);
}

bool JsonValue::boolean() const {
  const Json::Kind kind = index_ == kMissing ? Json::kNull : document_->items_[index_].kind;
  if (kind != Json::kTrue && kind != Json::kFalse) refuse("true or false");
  return kind == Json::kTrue;
}

size_t JsonValue::size() const {
  if (!is_list() && !is_object()) refuse("a list or an object");
  return document_->items_[index_].begin;
}

JsonValue JsonValue::operator[](const char* name) const {
  JsonValue found(document_, kMissing, path_ + "." + name);
  if (!is_object()) return found;
  uint32_t at = index_ + 1;
  for (uint32_t i = 0; i < document_->items_[index_].begin; ++i) {
    if (document_->decoded(document_->items_[at]) == name) found.index_ = at + 1;
    at = document_->items_[at + 1].next;
  }
  return found;
}

}  // namespace slmc::run
