// Loops over floats, compiled once per instruction set where the compiler can (clones.h).
#pragma once
#include <cstdint>

extern "C" {

// y[m, first .. last) = x[m, :] w[:, first .. last) of x [M, K], w [K, N], y [M, N].
void slmc_run_matmul_f32(const float* x, const float* w, float* y, int64_t M, int64_t K, int64_t N, int64_t first,
                         int64_t last);
// A row of shares from a row of scores.
void slmc_run_softmax_f32(const float* x, float* y, int64_t count);
float slmc_run_sum_f32(const float* x, int64_t count);

}  // extern "C"
