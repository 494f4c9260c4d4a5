// JSON while it is written: members of objects, one after the other.
#pragma once
#include <cinttypes>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace slmc::run {

class JsonText {
 public:
  const std::string& text() const { return text_; }

  JsonText& open(const char* name = nullptr) { return begin(name, '{'); }
  JsonText& close() {
    text_ += '}';
    first_ = false;
    return *this;
  }
  JsonText& open_list(const char* name) { return begin(name, '['); }
  JsonText& close_list() {
    text_ += ']';
    first_ = false;
    return *this;
  }
  JsonText& null(const char* name) { return raw(name, "null"); }
  JsonText& boolean(const char* name, bool value) { return raw(name, value ? "true" : "false"); }
  JsonText& integer(const char* name, int64_t value) { return raw(name, shown(value)); }
  // A number that is finite.
  JsonText& number(const char* name, double value) { return raw(name, shown(value)); }
  // Negative numbers stand for what the machine does not say.
  JsonText& known(const char* name, double value) { return value < 0 ? null(name) : number(name, value); }
  // Likewise 0 and less.
  JsonText& counted(const char* name, int64_t value) { return value > 0 ? integer(name, value) : null(name); }
  JsonText& string(const char* name, std::string_view value) { return raw(name, quoted(value)); }
  template <typename T>
  JsonText& list(const char* name, const std::vector<T>& values) {
    std::string all = "[";
    for (const T value : values) {
      if (all.size() > 1) all += ',';
      all += shown(value);
    }
    return raw(name, all + "]");
  }

 private:
  JsonText& begin(const char* name, char bracket) {
    raw(name, std::string_view(&bracket, 1));
    first_ = true;
    return *this;
  }
  JsonText& raw(const char* name, std::string_view value) {
    if (!first_) text_ += ',';
    first_ = false;
    if (name) text_ += quoted(name) + ":";
    text_ += value;
    return *this;
  }
  static std::string shown(int64_t value) { return std::to_string(value); }
  static std::string shown(int32_t value) { return std::to_string(value); }
  static std::string shown(double value) {
    char digits[32];
    std::snprintf(digits, sizeof digits, "%.17g", value);
    return digits;
  }
  static std::string quoted(std::string_view value) {
    std::string out = "\"";
    for (const char c : value) {
      if (c == '"' || c == '\\') (out += '\\') += c;
      else if (static_cast<unsigned char>(c) >= 0x20) out += c;
      else {
        char escaped[8];
        std::snprintf(escaped, sizeof escaped, "\\u%04x", c);
        out += escaped;
      }
    }
    return out + "\"";
  }

  std::string text_;
  bool first_ = true;
};

}  // namespace slmc::run
