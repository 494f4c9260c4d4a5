// UTF-8 as Unicode and Rust's std read it.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace slmc::run {

constexpr uint32_t kReplacement = 0xfffd;

inline void append_utf8(std::string* out, uint32_t c) {
  const auto put = [&](uint32_t byte) { out->push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xc0 | c >> 6), put(0x80 | (c & 63));
  } else if (c < 0x10000) {
    put(0xe0 | c >> 12), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
  } else {
    put(0xf0 | c >> 18), put(0x80 | (c >> 12 & 63)), put(0x80 | (c >> 6 & 63)), put(0x80 | (c & 63));
  }
}

// One code point, or what cannot be one.
struct Decoded {
  uint32_t code;
  uint32_t bytes;  // how many to go on by; of something malformed, its longest valid beginning, or 1
  bool valid;
};

inline Decoded decode_utf8(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : 0u; };
  const uint32_t first = byte(at);
  if (first < 0x80) return {first, 1, true};
  if (first < 0xc2 || first > 0xf4) return {kReplacement, 1, false};
  const uint32_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  uint32_t least = 0x80, most = 0xbf;
  if (first == 0xe0) least = 0xa0;
  if (first == 0xed) most = 0x9f;
  if (first == 0xf0) least = 0x90;
  if (first == 0xf4) most = 0x8f;
  uint32_t code = first & (0x7f >> length);
  for (uint32_t i = 1; i < length; ++i) {
    const uint32_t next = byte(at + i);
    if (next < least || next > most) return {kReplacement, i, false};
    least = 0x80, most = 0xbf;
    code = code << 6 | (next & 63);
  }
  return {code, length, true};
}

// An error as one line, whatever a damaged file made part of it.
inline std::string one_line(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size() && out.size() < 500;) {
    const Decoded found = decode_utf8(text, at);
    if (!found.valid || found.code < 0x20 || found.code == 0x7f) out += '?';
    else out.append(text.substr(at, found.bytes));
    at += found.bytes;
  }
  return out;
}

}  // namespace slmc::run
