// IntegrateFire, over the body of spikes.cc, which torch calls too.
#include "operator.h"
#include "recurrences.h"

namespace slmc {
namespace {

constexpr int64_t kWorthThreads = 1 << 15;  // neuron steps; waking a second core for less does not pay
constexpr int64_t kTaskNeurons = 4096;

class IntegrateFire : public Kernel {
 public:
  explicit IntegrateFire(const Node& node)
      : leak_(node.number("leak")), ternary_(node.zero_or_one("ternary")), soft_(node.zero_or_one("soft")) {
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
  return {"IntegrateFire", floats({"current", "threshold", "amplitude"}), floats({"spikes"}), make_kernel<IntegrateFire>,
          shaped_like<0>};
}

}  // namespace slmc
