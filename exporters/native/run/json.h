// JSON as RFC 8259 says it, read once into a flat list: 16 bytes per value, strings stay where they are in the text.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "operator.h"

namespace slmc::run {

class Json;

// One value of a document, which must outlive it. A missing value is none: asking it for anything is refused.
class JsonValue {
 public:
  JsonValue(const Json* document, uint32_t index, std::string path) : document_(document), index_(index), path_(std::move(path)) {}

  bool null() const;
  bool is_object() const;
  bool is_list() const;
  bool is_text() const;
  bool is_number() const;
  std::string text() const;      // decoded; raises where it is none
  double number() const;
  int64_t integer(int64_t least, int64_t most) const;
  bool boolean() const;
  size_t size() const;           // entries of a list or an object

  // A member of an object; null where there is none of that name.
  JsonValue operator[](const char* name) const;
  const std::string& path() const { return path_; }

  // Calls each(value) for a list.
  template <typename Each>
  void each(const Each& each) const;
  // Calls each(name, value) for an object.
  template <typename Each>
  void members(const Each& each) const;

  [[noreturn]] void refuse(const char* expected) const;

 private:
  friend class Json;
  const Json* document_;
  uint32_t index_;
  std::string path_;
};

class Json {
 public:
  // Raises Refusal, naming `what`, for text that is no JSON, is nested deeper than 64 or has more than 2^27 bytes.
  Json(std::string_view text, std::string what);
  JsonValue root() const { return {this, 0, what_}; }

 private:
  friend class JsonValue;
  enum Kind : uint8_t { kNull, kFalse, kTrue, kNumber, kText, kPlainText, kList, kObject };
  struct Item {
    uint32_t begin, end;  // of the text; of lists and objects, `begin` counts the entries
    uint32_t next;        // the item behind this one and all that it holds
    Kind kind;
  };

  void read_value(int depth);
  void read_container(int depth, char close, Kind kind);
  void read_text();
  void read_number();
  void read_word(const char* word, Kind kind);
  void skip_space();
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  [[noreturn]] void damaged(const char* expected) const;
  std::string decoded(const Item& item) const;

  std::string_view text_;
  std::string what_;
  size_t at_ = 0;
  std::vector<Item> items_;
};

template <typename Each>
void JsonValue::each(const Each& each) const {
  if (!is_list()) refuse("a list");
  const uint32_t count = document_->items_[index_].begin;
  uint32_t at = index_ + 1;
  for (uint32_t i = 0; i < count; ++i) {
    each(JsonValue(document_, at, path_));
    at = document_->items_[at].next;
  }
}

template <typename Each>
void JsonValue::members(const Each& each) const {
  if (!is_object()) refuse("an object");
  const uint32_t count = document_->items_[index_].begin;
  uint32_t at = index_ + 1;
  for (uint32_t i = 0; i < count; ++i) {
    each(document_->decoded(document_->items_[at]), JsonValue(document_, at + 1, path_));
    at = document_->items_[at + 1].next;
  }
}

}  // namespace slmc::run
