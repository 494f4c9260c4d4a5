// Which instruction set the kernels use: the best that this processor has, or less where a test forces it.
#pragma once

namespace slmc {

// On aarch64 the vector set is NEON, elsewhere AVX2 with FMA and F16C; AVX-512 means BW, DQ, VL, VNNI, VBMI and
// GFNI (Ice Lake, Zen 4 and later): processors with less of it run the AVX2 kernels.
enum Isa : int { kPortable = 0, kVector = 1, kWideVector = 2 };

Isa isa();

// What the vector set has for products of bytes summed in fours: nothing, NEON's dotprod or AVX-VNNI, or AVX-512 VNNI's
// encoding on 256-bit registers. Kernels that make no use of it need not ask.
enum DotProducts : int { kNoDot = 0, kDot = 1, kDotEvex = 2 };

DotProducts dot_products();

}  // namespace slmc
