// What the checks of one vector type have in common: numbers that look random, and a count of what differs.
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace checks {

class Numbers {
 public:
  uint32_t next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33);
  }
  int from(int least, int most) { return least + static_cast<int>(next() % static_cast<uint32_t>(most - least + 1)); }

 private:
  uint64_t state_ = 1;
};

class Outcome {
 public:
  template <typename A, typename B>
  void same(const char* what, int at, A found, B expected) {
    ++compared_;
    if (found == static_cast<A>(expected)) return;
    if (++wrong_ <= 20)
      std::printf("%s[%d] is %g, expected %g\n", what, at, static_cast<double>(found), static_cast<double>(expected));
  }
  int finish(const char* name) const {
    std::printf("%s: %d compared, %d wrong\n", name, compared_, wrong_);
    return wrong_ > 0;
  }

 private:
  int compared_ = 0, wrong_ = 0;
};

}  // namespace checks

int check_avx2();
int check_avx_vnni();
int check_avx512vl_vnni();
int check_avx512();
int check_neon();
int check_neon_dot();
