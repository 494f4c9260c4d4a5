// Standard operators that add up: products, reductions, normalisations.
#include <cmath>
#include <limits>

#include "fusions.h"
#include "numeric.h"
#include "standard.h"

namespace slmc::run {
namespace {

constexpr int64_t kColumnsPerTask = 256;
constexpr int64_t kWorthThreads = 1 << 17;  // products; waking a second thread for fewer does not pay

class MatMul final : public Standard {
 public:
  void compute(const Step& step) override {
    const Tensor x = expect_input(step, 0, kFloat), w = expect_input(step, 1, kFloat);
    if (x.shape.rank < 2 || w.shape.rank < 2) throw Refusal("slmc-run multiplies matrices, not vectors");
    const int64_t M = x.shape.dims[x.shape.rank - 2], K = x.shape.last(), N = w.shape.last();
    if (w.shape.dims[w.shape.rank - 2] != K) throw Refusal(x.shape.text() + " times " + w.shape.text());
    Shape outer_x = x.shape, outer_w = w.shape;
    outer_x.rank -= 2, outer_w.rank -= 2;
    const Shape outer = broadcast(outer_x, outer_w);
    Shape out = outer;
    if (out.rank + 2 > kMaxRank) throw Refusal("more than 8 dimensions");
    out.dims[out.rank++] = M;
    out.dims[out.rank++] = N;
    auto* y = static_cast<float*>(step.output(0, out, kFloat));
    if (outer_w.count() == 1 && x.shape.count() == outer.count() * M * K)
      return multiply(step, x.as<float>(), w.as<float>(), y, outer.count() * M, K, N);
    const Shape rows = at_least_one_axis(outer);
    const Strides sx(outer_x, rows), sw(outer_w, rows);
    const size_t last = rows.rank - 1;
    for_each_row(rows, sx, sw, sw, [&](int64_t ix, int64_t iw, int64_t, int64_t at) {
      for (int64_t i = 0; i < rows.last(); ++i)
        multiply(step, x.as<float>() + (ix + i * sx.of[last]) * M * K, w.as<float>() + (iw + i * sw.of[last]) * K * N,
                 y + (at + i) * M * N, M, K, N);
    });
  }

 private:
  static void multiply(const Step& step, const float* x, const float* w, float* y, int64_t M, int64_t K, int64_t N) {
    if (M * N * K < kWorthThreads) return slmc_run_matmul_f32(x, w, y, M, K, N, 0, N);
    step.parallel(static_cast<size_t>((N + kColumnsPerTask - 1) / kColumnsPerTask), [&](size_t task) {
      const int64_t first = static_cast<int64_t>(task) * kColumnsPerTask, last = first + kColumnsPerTask;
      slmc_run_matmul_f32(x, w, y, M, K, N, first, last < N ? last : N);
    });
  }
};

class Softmax final : public Standard {
 public:
  explicit Softmax(const GraphNode& node) : axis_(node.integer_or("axis", -1)) {}

  void compute(const Step& step) override {
    const Tensor x = expect_input(step, 0, kFloat);
    if (positive_axis(axis_, x.shape.rank) + 1 != x.shape.rank) throw Refusal("slmc-run has it along the last axis only");
    auto* y = static_cast<float*>(step.output(0, x.shape, kFloat));
    const int64_t length = x.shape.last(), count = x.shape.count();
    for (int64_t at = 0; at < count; at += length) slmc_run_softmax_f32(x.as<float>() + at, y + at, length);
  }

 private:
  int64_t axis_;
};

class LayerNorm final : public Standard {
 public:
  explicit LayerNorm(const GraphNode& node)
      : axis_(node.integer_or("axis", -1)), epsilon_(node.number_or("epsilon", 1e-5f)) {}

  void compute(const Step& step) override {
    const Tensor x = expect_input(step, 0, kFloat), weight = expect_input(step, 1, kFloat);
    if (positive_axis(axis_, x.shape.rank) + 1 != x.shape.rank) throw Refusal("slmc-run has it along the last axis only");
    const int64_t length = x.shape.last(), count = x.shape.count();
    if (weight.shape.count() != length) throw Refusal("its weight is " + weight.shape.text());
    const float* bias = nullptr;
    if (step.input(2).data) {
      const Tensor given = expect_input(step, 2, kFloat);
      if (given.shape.count() != length) throw Refusal("its bias is " + given.shape.text());
      bias = given.as<float>();
    } else {
      zeros_.resize(static_cast<size_t>(length));
      bias = zeros_.data();
    }
    auto* y = static_cast<float*>(step.output(0, x.shape, kFloat));
    for (int64_t at = 0; at < count; at += length)
      slmc_layer_norm_f32(x.as<float>() + at, weight.as<float>(), bias, y + at, length, epsilon_);
  }

 private:
  int64_t axis_;
  float epsilon_;
  std::vector<float> zeros_;
};

class Reduction final : public Standard {
 public:
  Reduction(const std::string& type, const GraphNode& node)
      : mean_(type == "ReduceMean"), largest_(type == "ReduceMax"), keep_(node.integer_or("keepdims", 1) != 0),
        nothing_for_none_(node.integer_or("noop_with_empty_axes", 0) != 0), axes_(node.integers_or("axes", {})) {}

  void compute(const Step& step) override {
    const Tensor x = expect_input(step, 0, kFloat);
    bool summed[kMaxRank] = {};
    const std::vector<int64_t> axes = step.input(1).data ? integers(step, 1) : axes_;
    for (const int64_t axis : axes) summed[positive_axis(axis, x.shape.rank)] = true;
    if (axes.empty() && !nothing_for_none_)
      for (size_t i = 0; i < x.shape.rank; ++i) summed[i] = true;
    Shape kept = x.shape, out;
    int64_t entries = 1;
    for (size_t i = 0; i < x.shape.rank; ++i) {
      if (summed[i]) entries *= x.shape.dims[i], kept.dims[i] = 1;
      if (!summed[i] || keep_) out.dims[out.rank++] = kept.dims[i];
    }
    auto* y = static_cast<float*>(step.output(0, out, kFloat));
    if (largest_) return take_largest(x, at_least_one_axis(x.shape), kept, y);
    add_up(x, at_least_one_axis(x.shape), kept, y);
    if (mean_)
      for (int64_t i = 0; i < out.count(); ++i) y[i] /= static_cast<float>(entries);
  }

 private:
  static void add_up(const Tensor& x, const Shape& rows, const Shape& kept, float* y) {
    std::fill(y, y + kept.count(), 0.0f);
    const Strides to(kept, rows);
    const int64_t length = rows.last();
    const bool within = to.of[rows.rank - 1] == 0 && length > 1;
    for_each_row(rows, to, to, to, [&](int64_t at, int64_t, int64_t, int64_t from) {
      const float* row = x.as<float>() + from;
      if (within) y[at] += slmc_run_sum_f32(row, length);
      else slmc_add_f32(y + at, row, 1, y + at, length);
    });
  }

  static void take_largest(const Tensor& x, const Shape& rows, const Shape& kept, float* y) {
    std::fill(y, y + kept.count(), -std::numeric_limits<float>::infinity());
    const Strides to(kept, rows);
    const int64_t length = rows.last(), step = to.of[rows.rank - 1];
    for_each_row(rows, to, to, to, [&](int64_t at, int64_t, int64_t, int64_t from) {
      const float* row = x.as<float>() + from;
      for (int64_t i = 0; i < length; ++i) {
        float& most = y[at + i * step];
        if (row[i] > most || std::isnan(row[i])) most = row[i];
      }
    });
  }

  bool mean_, largest_, keep_, nothing_for_none_;
  std::vector<int64_t> axes_;  // an attribute in opsets before 18 (ReduceSum: 13), an input since
};

}  // namespace

std::unique_ptr<Standard> make_matmul(const std::string&, const GraphNode&) { return std::make_unique<MatMul>(); }
std::unique_ptr<Standard> make_softmax(const std::string&, const GraphNode& node) {
  return std::make_unique<Softmax>(node);
}
std::unique_ptr<Standard> make_layer_norm(const std::string&, const GraphNode& node) {
  return std::make_unique<LayerNorm>(node);
}
std::unique_ptr<Standard> make_reduction(const std::string& type, const GraphNode& node) {
  return std::make_unique<Reduction>(type, node);
}

}  // namespace slmc::run
