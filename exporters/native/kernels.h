// The kernels of every instruction set, one table each, and the one place that chooses among them.
#pragma once
#include "attention_kernels.h"
#include "events.h"
#include "matrix.h"
#include "sparse.h"

namespace slmc {

struct KernelTable {
  const LinearKernels* linear;
  const EventKernels* events;
  const SparseKernels* tiles;  // of 16 rows; null where their rows are decoded first
  const AttentionKernels* attention;
};

// Of the instruction set in use (isa.h).
const KernelTable& kernels();

// Vector kernels take groups that fill words.
const LinearKernels& linear_kernels(int64_t group, int bits);

namespace portable {
extern const LinearKernels linear;
extern const AttentionKernels attention;
extern const EventKernels events;
}  // namespace portable

namespace avx2 {
extern const LinearKernels linear;
extern const AttentionKernels attention;
extern const EventKernels events;
extern const SparseKernels tiles;
}  // namespace avx2

namespace avx_vnni {
extern const LinearKernels linear;
extern const AttentionKernels attention;
extern const SparseKernels tiles;
}  // namespace avx_vnni

namespace avx512vl_vnni {
extern const LinearKernels linear;
extern const AttentionKernels attention;
extern const SparseKernels tiles;
}  // namespace avx512vl_vnni

namespace avx512 {
extern const LinearKernels linear;
extern const AttentionKernels attention;
extern const EventKernels events;
extern const SparseKernels tiles;
}  // namespace avx512

namespace avx512_amx {
extern const LinearKernels linear;
}  // namespace avx512_amx

namespace neon {
extern const LinearKernels linear;
extern const AttentionKernels attention;
extern const EventKernels events;
extern const SparseKernels tiles;
}  // namespace neon

namespace neon_dot {
extern const LinearKernels linear;
extern const AttentionKernels attention;
extern const SparseKernels tiles;
}  // namespace neon_dot

}  // namespace slmc
