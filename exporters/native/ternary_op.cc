// TernaryLinear: y[..., n] = scale * step * sum_k q[..., k] w[n, k], w -1, 0 or 1, q = round(x / step), one step a token.
#include <algorithm>
#include <cmath>
#include <limits>

#include "elementary.h"
#include "products.h"
#include "ternary.h"

namespace slmc {
namespace {

constexpr float kLeast = 1e-5f;          // SMALLEST_INPUT of exporters/ops/ternary.py
constexpr float kMagic = 12582912.0f;    // 1.5 * 2^23: adding it rounds to the nearest integer, ties to even
constexpr float kLargest = 3.4028235e38f;
constexpr int64_t kLanes = 16;
constexpr int64_t kTileWork = 1 << 20;  // weights times tokens of a task; waking a second core for less does not pay

// x [K] to integers; returns what the sum of products is multiplied with, NaN where x is not finite.
float rounded(const float* x, int64_t K, int64_t padded, int8_t* q, int32_t* sum) {
  float mosts[kLanes] = {}, alls[kLanes] = {}, most = kLeast, all = 0;
  const int64_t whole = K / kLanes * kLanes;
  for (int64_t k = 0; k < whole; k += kLanes)
    for (int64_t i = 0; i < kLanes; ++i)
      mosts[i] = larger(std::fabs(x[k + i]), mosts[i]), alls[i] += 0.0f * x[k + i];
  for (int64_t k = whole; k < K; ++k) mosts[0] = larger(std::fabs(x[k]), mosts[0]), alls[0] += 0.0f * x[k];
  for (int64_t i = 0; i < kLanes; ++i) most = larger(mosts[i], most), all += alls[i];
  std::fill(q, q + padded, int8_t{0});
  *sum = 0;
  if (all != 0 || most > kLargest) return std::numeric_limits<float>::quiet_NaN();
  const float steps = 127.0f / most;
  for (int64_t k = 0; k < K; ++k) {
    const float step = (x[k] * steps + kMagic) - kMagic;
    q[k] = static_cast<int8_t>(std::min(step, 127.0f));
    *sum += q[k];
  }
  return 1.0f / steps;
}

class TernaryLinear : public Kernel {
 public:
  explicit TernaryLinear(const Node& node) : N_(node.integer("N")), K_(node.integer("K")) {
    if (N_ < 1 || K_ < 1 || N_ > (int64_t{1} << 40) || K_ > (int64_t{1} << 22))
      throw Refusal("a matrix of " + std::to_string(N_) + " x " + std::to_string(K_) + " cannot be");
  }

  void compute(const Call& call) override {
    const Tensor x = call.input(0), codes = call.input(1), scale = call.input(2);
    if (x.shape.rank == 0 || x.shape.last() != K_)
      throw Refusal("input 'x' is " + x.shape.text() + ", expected [..., " + std::to_string(K_) + "]");
    const int64_t tiles = (N_ + kTernaryRows - 1) / kTernaryRows, words = (K_ + kTernaryInputs - 1) / kTernaryInputs;
    expect_shape(codes, {tiles, words, kTernaryBytes}, "codes");
    expect_shape(scale, {1}, "scale");
    Shape shape = x.shape;
    shape.dims[shape.rank - 1] = N_;
    auto* y = static_cast<float*>(call.output(0, shape));
    const int64_t tokens = x.shape.count() / K_, padded = words * kTernaryInputs;
    if (tokens == 0) return;
    Arena& arena = call_arena();
    auto* q = arena.take<int8_t>(tokens * padded);
    auto* of_inputs = arena.take<int32_t>(tokens);
    auto* factors = arena.take<float>(tokens);
    auto* sums = arena.take<int32_t>(tokens * N_);
    for (int64_t t = 0; t < tokens; ++t)
      factors[t] = rounded(x.as<float>() + t * K_, K_, padded, q + t * padded, &of_inputs[t]) * scale.as<float>()[0];
    const int64_t per_task = std::max<int64_t>(1, kTileWork / (K_ * tokens * kTernaryRows));
    call.parallel(static_cast<size_t>((tiles + per_task - 1) / per_task), [&](size_t task) {
      const int64_t first = static_cast<int64_t>(task) * per_task * kTernaryRows;
      const int64_t last = std::min(N_, first + per_task * kTernaryRows);
      ternary_sums({codes.as<uint8_t>(), q, sums, N_, words, tokens, first, last});
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t n = first; n < last; ++n)
          y[t * N_ + n] = static_cast<float>(sums[t * N_ + n] - of_inputs[t]) * factors[t];
    });
  }

 private:
  int64_t N_, K_;
};

}  // namespace

Operator ternary_linear_operator() {
  return {"TernaryLinear",
          {{"x", kFloat}, {"codes", kUint8}, {"scale", kFloat}},
          floats({"y"}), make_kernel<TernaryLinear>, infer_product};
}

}  // namespace slmc
