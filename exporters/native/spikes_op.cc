// IntegrateFire, over the body of spikes.cc, which torch calls too.
#include "operator.h"
#include "recurrences.h"

namespace slmc {
namespace {

constexpr int64_t kWorthThreads = 1 << 15;  // neuron steps; waking a second core for less does not pay
constexpr int64_t kTaskNeurons = 4096;

float one_or_zero(const Node& node, const char* attribute) {
  const float value = node.number(attribute);
  if (value != 0 && value != 1) throw Refusal(std::string("attribute ") + attribute + " is neither 0 nor 1");
  return value;
}

class IntegrateFire : public Kernel {
 public:
  explicit IntegrateFire(const Node& node)
      : leak_(node.number("leak")), ternary_(one_or_zero(node, "ternary")), soft_(one_or_zero(node, "soft")) {
    if (!(leak_ >= 0 && leak_ <= 1))
      throw Refusal("attribute leak = " + std::to_string(leak_) + " is not from 0 to 1");
  }

  void compute(const Call& call) override {
    const Tensor current = call.input(0), threshold = call.input(1), amplitude = call.input(2);
    if (current.shape.rank != 3)
      throw Refusal("input 'current' is " + current.shape.text() + ", expected [steps, rows, channels]");
    const int64_t steps = current.shape.dims[0], count = current.shape.dims[1] * current.shape.dims[2];
    expect_shape(threshold, {steps}, "threshold");
    expect_shape(amplitude, {steps}, "amplitude");
    auto* spikes = static_cast<float*>(call.output(0, current.shape));
    const auto run = [&](int64_t first, int64_t last) {
      slmc_integrate_fire_f32(current.as<float>(), threshold.as<float>(), amplitude.as<float>(), spikes, steps, count,
                              first, last, leak_, ternary_, soft_);
    };
    if (steps * count < kWorthThreads) return run(0, count);
    call.parallel(static_cast<size_t>((count + kTaskNeurons - 1) / kTaskNeurons), [&](size_t task) {
      const int64_t first = static_cast<int64_t>(task) * kTaskNeurons, last = first + kTaskNeurons;
      run(first, last < count ? last : count);
    });
  }

 private:
  float leak_, ternary_, soft_;
};

}  // namespace

Operator integrate_fire_operator() {
  return {"IntegrateFire",
          {{"current", kFloat}, {"threshold", kFloat}, {"amplitude", kFloat}},
          {{"spikes", kFloat}},
          [](const Node& node) -> std::unique_ptr<Kernel> { return std::make_unique<IntegrateFire>(node); },
          [](const Inference& inference) { inference.output(0, inference.input(0), kFloat); }};
}

}  // namespace slmc
