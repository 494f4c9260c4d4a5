// Which instruction set the kernels use: the best that this processor has, or less where a test forces it.
#pragma once

namespace slmc {

// In the order of their tables in kernels.cc. AVX2 comes with FMA and F16C; its VNNI (products of bytes summed in
// fours) in one of two encodings. AVX-512 means BW, DQ, VL, VNNI, VBMI, VBMI2 and GFNI (Ice Lake, Zen 4 and later):
// processors with less of it run the AVX2 kernels. AMX means its products of bytes (Sapphire Rapids and later), which the
// system must permit.
#if defined(__x86_64__)
enum Isa : int { kPortable, kAvx2, kAvxVnni, kAvx512VlVnni, kAvx512, kAvx512Amx };
#elif defined(__aarch64__)
enum Isa : int { kPortable, kNeon, kNeonDot };
#elif defined(__arm__) && __ARM_ARCH >= 7
enum Isa : int { kPortable, kNeon };
#else
enum Isa : int { kPortable };
#endif

Isa isa();

}  // namespace slmc
