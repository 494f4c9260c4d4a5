// IntegrateFire for ONNX Runtime: integrate-and-fire over spike steps, from membranes at rest.
//
//   u[s] = leak * v[s-1] + drive[s]
//   z[s] = [u[s] >= threshold[s]], ternary less [u[s] <= -threshold[s]]
//   v[s] = u[s] where z[s] = 0, else 0 (hard) or u[s] - threshold[s] z[s] (soft)
//   y[s] = amplitude[s] z[s]
//
// Arrays are [steps, rows, channels], threshold and amplitude [steps].
#include "elementary.h"
#include "operator.h"

namespace {

constexpr int64_t kBlock = 256;  // neurons whose membranes stay in the first cache over all steps

struct Neurons {
  float leak, ternary, soft;
};

SLMC_INLINE void integrate(const float* drive, const float* threshold, const float* amplitude, float* spikes,
                           int64_t steps, int64_t count, int64_t first, int64_t last, const Neurons& neurons) {
  float v[kBlock];
  for (int64_t at = first; at < last; at += kBlock) {
    const int64_t n = last - at < kBlock ? last - at : kBlock;
    for (int64_t i = 0; i < n; ++i) v[i] = 0;
    for (int64_t s = 0; s < steps; ++s) {
      const float theta = threshold[s], a = amplitude[s];
      const float* x = drive + s * count + at;
      float* y = spikes + s * count + at;
      SLMC_LANES
      for (int64_t i = 0; i < n; ++i) {
        const float u = neurons.leak * v[i] + x[i];
        const float code = (u >= theta ? 1.0f : 0.0f) - (u <= -theta ? neurons.ternary : 0.0f);
        const float after = neurons.soft * (u - theta * code);
        v[i] = code != 0 ? after : u;
        y[i] = a * code;
      }
    }
  }
}

}  // namespace

extern "C" SLMC_MULTIARCH void slmc_integrate_fire_f32(const float* drive, const float* threshold,
                                                       const float* amplitude, float* spikes, int64_t steps,
                                                       int64_t count, int64_t first, int64_t last, float leak,
                                                       float ternary, float soft) {
  integrate(drive, threshold, amplitude, spikes, steps, count, first, last, {leak, ternary, soft});
}

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
      : neurons_{node.number("leak"), one_or_zero(node, "ternary"), one_or_zero(node, "soft")} {
    if (!(neurons_.leak >= 0 && neurons_.leak <= 1))
      throw Refusal("attribute leak = " + std::to_string(neurons_.leak) + " is not from 0 to 1");
  }

  void compute(const Call& call) override {
    const Tensor drive = call.input(0), threshold = call.input(1), amplitude = call.input(2);
    if (drive.shape.rank != 3)
      throw Refusal("input 'drive' is " + drive.shape.text() + ", expected [steps, rows, channels]");
    const int64_t steps = drive.shape.dims[0], count = drive.shape.dims[1] * drive.shape.dims[2];
    expect_shape(threshold, {steps}, "threshold");
    expect_shape(amplitude, {steps}, "amplitude");
    auto* spikes = static_cast<float*>(call.output(0, drive.shape));
    const auto run = [&](int64_t first, int64_t last) {
      slmc_integrate_fire_f32(drive.as<float>(), threshold.as<float>(), amplitude.as<float>(), spikes, steps, count,
                              first, last, neurons_.leak, neurons_.ternary, neurons_.soft);
    };
    if (steps * count < kWorthThreads) return run(0, count);
    call.parallel(static_cast<size_t>((count + kTaskNeurons - 1) / kTaskNeurons), [&](size_t task) {
      const int64_t first = static_cast<int64_t>(task) * kTaskNeurons, last = first + kTaskNeurons;
      run(first, last < count ? last : count);
    });
  }

 private:
  Neurons neurons_;
};

}  // namespace

Operator integrate_fire_operator() {
  return {"IntegrateFire",
          {{"drive", ort::kFloat}, {"threshold", ort::kFloat}, {"amplitude", ort::kFloat}},
          {{"spikes", ort::kFloat}},
          [](const Node& node) -> std::unique_ptr<Kernel> { return std::make_unique<IntegrateFire>(node); },
          [](const Inference& inference) { inference.output(0, inference.input(0), ort::kFloat); }};
}

}  // namespace slmc
