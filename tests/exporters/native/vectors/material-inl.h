// Random numbers for the checks of a vector type V, and comparisons of what its operations give.
#pragma once
#include "check.h"
#include "lanes.h"

namespace {

using checks::Numbers;
using checks::Outcome;

template <typename V>
class Material {
 protected:
  using I = typename V::I;
  using F = typename V::F;
  static constexpr int kLanes = V::kLanes, kBytes = 4 * kLanes;

  struct alignas(64) Bytes {
    uint8_t of[256] = {};
  };
  struct alignas(64) Words {
    int32_t of[kLanes];
  };
  struct alignas(64) Floats {
    float of[kLanes];
  };

  Numbers numbers_;
  Outcome out_;

  Bytes bytes(int least, int most) {
    Bytes b;
    for (uint8_t& byte : b.of) byte = static_cast<uint8_t>(numbers_.from(least, most));
    return b;
  }
  Words words() {
    Words w;
    for (int32_t& word : w.of) word = static_cast<int32_t>(numbers_.next() << 1);
    return w;
  }
  Floats floats() {
    Floats f;
    for (float& value : f.of) value = static_cast<float>(numbers_.from(-500, 500)) / 4;
    return f;
  }
  template <typename Expected>
  void expect(const char* what, I found, const Expected& expected) {
    Words w;
    V::store(reinterpret_cast<uint8_t*>(w.of), found);
    for (int i = 0; i < kLanes; ++i) out_.same(what, i, w.of[i], expected(i));
  }
  template <typename Expected>
  void expect_floats(const char* what, F found, const Expected& expected) {
    Floats f;
    V::store(f.of, found);
    for (int i = 0; i < kLanes; ++i) out_.same(what, i, f.of[i], expected(i));
  }
  template <typename Expected>
  void expect_bytes(const char* what, I found, const Expected& expected) {
    Bytes b;
    V::store(b.of, found);
    for (int i = 0; i < kBytes; ++i) out_.same(what, i, int{b.of[i]}, int{expected(i)});
  }
};

}  // namespace
