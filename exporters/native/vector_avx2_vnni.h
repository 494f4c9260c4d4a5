// AVX2 with products of bytes summed in fours, in the encoding of AVX-VNNI or in that of AVX-512 on 256-bit registers.
// The one further instruction is named in assembly, so that files need no flag for it.
#pragma once
#include "vector_avx2.h"

namespace slmc {
namespace {

struct WithoutPairs : avx2::Vector {
  static constexpr bool kPairs = false, kSignedCodes8 = false;
  static constexpr int kSlots = 4;
};

}  // namespace

namespace avx_vnni {
namespace {

struct Vector : WithoutPairs {
  template <int bits>
  static SLMC_INLINE I dot(I sum, I codes, I x) {
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(codes), "x"(x));
    return sum;
  }
  static SLMC_INLINE I gather(const int8_t* q, const uint8_t* mask, int64_t count, int8_t* out, I sum) {
    return gather_by_shuffles<Vector>(q, mask, count, out, sum);
  }
};

}  // namespace
}  // namespace avx_vnni

// For processors whose AVX-512 has VNNI but too little else.
namespace avx512vl_vnni {
namespace {

struct Vector : WithoutPairs {
  template <int bits>
  static SLMC_INLINE I dot(I sum, I codes, I x) {
    asm("%{evex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(codes), "x"(x));
    return sum;
  }
  static SLMC_INLINE I gather(const int8_t* q, const uint8_t* mask, int64_t count, int8_t* out, I sum) {
    return gather_by_shuffles<Vector>(q, mask, count, out, sum);
  }
};

}  // namespace
}  // namespace avx512vl_vnni
}  // namespace slmc
