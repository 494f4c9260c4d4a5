// Lif and Wkv: the bodies of lif.cc and wkv.cc, the same that torch calls, over one sequence.
#include "operator.h"
#include "recurrences.h"

namespace slmc {
namespace {

void expect_sequence(const Tensor& tensor, int64_t channels, const char* what) {
  if (tensor.shape.rank != 3 || tensor.shape.dims[2] != channels)
    throw Refusal(std::string("input '") + what + "' is " + tensor.shape.text() + ", expected [batch, time, " +
                  std::to_string(channels) + "]");
}

class Lif : public Kernel {
 public:
  explicit Lif(const Node& node)
      : tau_(node.number("tau")), threshold_(node.number("threshold")), reset_(node.number("reset")) {
    if (!(tau_ > 0)) throw Refusal("attribute tau = " + std::to_string(tau_) + " is not positive");
  }

  void compute(const Call& call) override {
    const Tensor current = call.input(0), membrane = call.input(1);
    const int64_t channels = membrane.shape.last();
    expect_sequence(current, channels, "current");
    const int64_t batch = current.shape.dims[0], time = current.shape.dims[1];
    expect_shape(membrane, {batch, channels}, "membrane");
    auto* spikes = static_cast<float*>(call.output(0, current.shape));
    auto* after = static_cast<float*>(call.output(1, membrane.shape));
    slmc_lif_forward_f32(current.as<float>(), membrane.as<float>(), spikes, after, nullptr, batch, time, channels, tau_,
                         threshold_, reset_);
  }

 private:
  float tau_, threshold_, reset_;
};

class Wkv : public Kernel {
 public:
  explicit Wkv(const Node&) {}

  void compute(const Call& call) override {
    const Tensor decay = call.input(0), first = call.input(1), key = call.input(2), value = call.input(3);
    const int64_t channels = decay.shape.last();
    expect_sequence(key, channels, "key");
    const int64_t batch = key.shape.dims[0], time = key.shape.dims[1];
    expect_shape(decay, {channels}, "decay");
    expect_shape(first, {channels}, "first");
    expect_shape(value, key.shape, "value");
    constexpr const char* names[] = {"numerator", "denominator", "exponent"};
    const Shape state{batch, channels};
    const float* before[3];
    float* after[3];
    auto* y = static_cast<float*>(call.output(0, key.shape));
    for (int i = 0; i < 3; ++i) {
      const Tensor tensor = call.input(4 + i);
      expect_shape(tensor, state, names[i]);
      before[i] = tensor.as<float>();
      after[i] = static_cast<float*>(call.output(1 + i, state));
    }
    slmc_wkv_forward_f32(decay.as<float>(), first.as<float>(), key.as<float>(), value.as<float>(), before[0],
                         before[1], before[2], y, after[0], after[1], after[2], batch, time, channels);
  }
};

}  // namespace

Operator lif_operator() {
  return {"Lif", floats({"current", "membrane"}), floats({"spikes", "membrane_out"}), make_kernel<Lif>,
          shaped_like<0, 1>};
}

Operator wkv_operator() {
  return {"Wkv", floats({"decay", "first", "key", "value", "numerator", "denominator", "exponent"}),
          floats({"y", "numerator_out", "denominator_out", "exponent_out"}), make_kernel<Wkv>, shaped_like<2, 4, 5, 6>};
}

}  // namespace slmc
