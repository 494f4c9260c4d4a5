// Protobuf's wire format, read within bounds.
#pragma once
#include <cstring>

#include "file.h"
#include "operator.h"

namespace slmc::run {

class Wire {
 public:
  enum Kind { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

  explicit Wire(Span span) : next_(span.data), end_(span.data + span.size) {}

  // The next field's number and kind; false at the end.
  bool field() {
    if (next_ == end_) return false;
    const uint64_t key = varint();
    number = static_cast<uint32_t>(key >> 3);
    kind = static_cast<Kind>(key & 7);
    if (key >> 32 || number == 0) damaged();
    return true;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (next_ == end_) damaged();
      const uint8_t byte = *next_++;
      value |= static_cast<uint64_t>(byte & 127) << shift;
      if (!(byte & 128)) return value;
    }
    damaged();
  }

  Span bytes() {
    expect(kBytes);
    const uint64_t size = varint();
    return take(size);
  }

  int64_t integer() {
    expect(kVarint);
    return static_cast<int64_t>(varint());
  }

  float number32() {
    expect(kFixed32);
    float value;
    std::memcpy(&value, take(4).data, sizeof value);
    return value;
  }

  std::string text() { return std::string(bytes().text()); }

  // Calls each(integer) for a repeated field, packed or not.
  template <typename Each>
  void integers(const Each& each) {
    if (kind == kVarint) return each(integer());
    for (Wire packed(bytes()); packed.next_ != packed.end_;) each(static_cast<int64_t>(packed.varint()));
  }

  void skip() {
    if (kind == kVarint) varint();
    else if (kind == kFixed64) take(8);
    else if (kind == kFixed32) take(4);
    else bytes();
  }

  uint32_t number = 0;
  Kind kind = kVarint;

 private:
  [[noreturn]] static void damaged() { throw Refusal("model.onnx: damaged; copy the artifact again"); }
  void expect(Kind wanted) const {
    if (kind != wanted) damaged();
  }
  Span take(uint64_t size) {
    if (size > static_cast<uint64_t>(end_ - next_)) damaged();
    const Span span{next_, static_cast<size_t>(size)};
    next_ += size;
    return span;
  }

  const uint8_t *next_, *end_;
};

}  // namespace slmc::run
