// RmsNorm: y = x / sqrt(mean x^2 + epsilon) * weight over the last axis of x [..., channel].
#include "fusions.h"
#include "vectors.h"

namespace slmc {
namespace {

class RmsNorm : public Kernel {
 public:
  explicit RmsNorm(const Node& node) : epsilon_(node.number("epsilon")), weight_(node, 1, "weight") {
    if (!(epsilon_ >= 0)) throw Refusal("attribute epsilon = " + std::to_string(epsilon_) + " is negative");
  }

  void compute(const Call& call) override {
    const Tensor x = call.input(0);
    const int64_t channels = x.shape.last();
    if (x.shape.rank == 0 || channels == 0) throw Refusal("input 'x' is " + x.shape.text() + ", expected channels");
    const float* weight = weight_.bind(call, channels);
    auto* y = static_cast<float*>(call.output(0, x.shape));
    const int64_t rows = x.shape.count() / channels;
    const int64_t per_task = rows * channels < kWorthElements ? rows : 1 + kWorthElements / channels;
    if (rows == 0) return;
    call.parallel(static_cast<size_t>((rows + per_task - 1) / per_task), [&](size_t task) {
      const int64_t first = static_cast<int64_t>(task) * per_task, last = first + per_task;
      for (int64_t row = first; row < last && row < rows; ++row)
        slmc_rms_norm_f32(x.as<float>() + row * channels, weight, y + row * channels, channels, epsilon_);
    });
  }

 private:
  float epsilon_;
  Vector weight_;
};

}  // namespace

Operator rms_norm_operator() {
  return {"RmsNorm", floats({"x", "weight"}), floats({"y"}), make_kernel<RmsNorm>, shaped_like<0>};
}

}  // namespace slmc
