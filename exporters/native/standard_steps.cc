// ONNX's own operators as steps of a Fused node: entry by entry, and the layer norm over the last axis.
#include "fusions.h"
#include "steps.h"
#include "vectors.h"

namespace slmc {
namespace {

// Runs body(first, last) over rows, in parallel where there is enough to do.
template <typename Body>
void over_rows(const Call& call, int64_t rows, int64_t channels, const Body& body) {
  if (rows * channels < kWorthElements) return body(int64_t{0}, rows);
  const int64_t per_task = 1 + kWorthElements / channels;
  call.parallel(static_cast<size_t>((rows + per_task - 1) / per_task), [&](size_t task) {
    const int64_t first = static_cast<int64_t>(task) * per_task, last = first + per_task;
    body(first, last < rows ? last : rows);
  });
}

int64_t rows_of(const Shape& shape) { return shape.last() ? shape.count() / shape.last() : 0; }

using BinaryLoop = void (*)(const float* a, const float* b, int64_t step_b, float* y, int64_t count);

// Of two tensors of one shape, or of one and a vector along its last axis, or one number.
class Binary : public Kernel {
 public:
  explicit Binary(BinaryLoop loop) : loop_(loop) {}
  bool by_rows() const override { return true; }

  void compute(const Call& call) override {
    Tensor a = call.input(0), b = call.input(1);
    if (a.shape.count() < b.shape.count() || a.shape.rank < b.shape.rank) std::swap(a, b);
    const int64_t channels = a.shape.last(), entries = b.shape.count();
    const bool same = a.shape == b.shape, one = entries == 1;
    if (!same && !one && !(entries == channels && b.shape.last() == channels && b.shape.rank <= a.shape.rank))
      throw Refusal("its inputs are " + a.shape.text() + " and " + b.shape.text() +
                    "; known are equal shapes, and a vector or a number beside one");
    auto* y = static_cast<float*>(call.output(0, a.shape));
    over_rows(call, rows_of(a.shape), channels, [&](int64_t first, int64_t last) {
      const float* x = a.as<float>() + first * channels;
      if (same || one)
        return loop_(x, b.as<float>() + (same ? first * channels : 0), same, y + first * channels,
                     (last - first) * channels);
      for (int64_t row = first; row < last; ++row)
        loop_(a.as<float>() + row * channels, b.as<float>(), 1, y + row * channels, channels);
    });
  }

 private:
  BinaryLoop loop_;
};

using UnaryLoop = void (*)(const float* x, float* y, int64_t count);

class Unary : public Kernel {
 public:
  explicit Unary(UnaryLoop loop) : loop_(loop) {}
  bool by_rows() const override { return true; }

  void compute(const Call& call) override {
    const Tensor x = call.input(0);
    const int64_t channels = x.shape.last();
    auto* y = static_cast<float*>(call.output(0, x.shape));
    over_rows(call, rows_of(x.shape), channels, [&](int64_t first, int64_t last) {
      loop_(x.as<float>() + first * channels, y + first * channels, (last - first) * channels);
    });
  }

 private:
  UnaryLoop loop_;
};

class LayerNorm : public Kernel {
 public:
  explicit LayerNorm(const Node& node)
      : epsilon_(node.number("epsilon")), weight_(node, 1, "scale"), bias_(node, 2, "bias") {}

  void compute(const Call& call) override {
    const Tensor x = call.input(0);
    const int64_t channels = x.shape.last();
    const float *weight = weight_.bind(call, channels), *bias = bias_.bind(call, channels);
    auto* y = static_cast<float*>(call.output(0, x.shape));
    over_rows(call, rows_of(x.shape), channels, [&](int64_t first, int64_t last) {
      for (int64_t row = first; row < last; ++row)
        slmc_layer_norm_f32(x.as<float>() + row * channels, weight, bias, y + row * channels, channels, epsilon_);
    });
  }

 private:
  float epsilon_;
  Vector weight_, bias_;
};

template <BinaryLoop loop>
std::unique_ptr<Kernel> binary(const Node&) {
  return std::make_unique<Binary>(loop);
}

template <UnaryLoop loop>
std::unique_ptr<Kernel> unary(const Node&) {
  return std::make_unique<Unary>(loop);
}

std::unique_ptr<Kernel> gelu(const Node& node) {
  return std::make_unique<Unary>(node.text("approximate") == "tanh" ? slmc_gelu_tanh_f32 : slmc_gelu_f32);
}

void unknown_shapes(const Inference&) {}

}  // namespace

const std::vector<Operator>& standard_steps() {
  static const std::vector<Port> one = {{"x", kFloat}}, two = {{"a", kFloat}, {"b", kFloat}}, y = {{"y", kFloat}};
  static const std::vector<Operator> all = {
      {"Add", two, y, binary<slmc_add_f32>, unknown_shapes},
      {"Mul", two, y, binary<slmc_multiply_f32>, unknown_shapes},
      {"Sigmoid", one, y, unary<slmc_sigmoid_f32>, unknown_shapes},
      {"Relu", one, y, unary<slmc_relu_f32>, unknown_shapes},
      {"Gelu", one, y, gelu, unknown_shapes},
      {"LayerNormalization",
       {{"x", kFloat}, {"scale", kFloat}, {"bias", kFloat}},
       y,
       [](const Node& node) -> std::unique_ptr<Kernel> { return std::make_unique<LayerNorm>(node); },
       unknown_shapes},
  };
  return all;
}

}  // namespace slmc
