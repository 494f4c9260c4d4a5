// ShiftMix2, ShiftMix3, GatedWkv, SpikeAdd, GatedSpikeAdd and SquaredRelu, over the bodies of fusions.cc.
//
// Arrays are [batch, time, channel], states [batch, channel]; vectors have `channel` entries, whatever their rank.
#include <cstring>

#include "fusions.h"
#include "vectors.h"

namespace slmc {
namespace {

constexpr int64_t kChannelsPerTask = 64;
constexpr int64_t kTokensPerTask = 16;

struct Sequence {
  const float* data;
  int64_t batch, time, channels;
  int64_t row() const { return time * channels; }
};

Sequence sequence(const Tensor& tensor, const char* name) {
  if (tensor.shape.rank != 3)
    throw Refusal(std::string("input '") + name + "' is " + tensor.shape.text() + ", expected [batch, time, channel]");
  return {tensor.as<float>(), tensor.shape.dims[0], tensor.shape.dims[1], tensor.shape.dims[2]};
}

const float* like(const Call& call, size_t index, const Shape& shape, const char* name) {
  const Tensor tensor = call.input(index);
  expect_shape(tensor, shape, name);
  return tensor.as<float>();
}

// A state's output, holding what its input holds.
float* carried(const Call& call, size_t input, size_t output, const Shape& shape, const char* name) {
  const float* before = like(call, input, shape, name);
  auto* after = static_cast<float*>(call.output(output, shape));
  if (after != before) std::memcpy(after, before, shape.count() * sizeof(float));
  return after;
}

// Runs body(range) over the channels, in parallel where there is enough to do.
template <typename Body>
void over_channels(const Call& call, const Sequence& s, const Body& body) {
  if (s.row() < kWorthElements) return body(Recurrence{s.time, s.channels, 0, s.channels});
  call.parallel((s.channels + kChannelsPerTask - 1) / kChannelsPerTask, [&](size_t task) {
    const int64_t first = static_cast<int64_t>(task) * kChannelsPerTask, last = first + kChannelsPerTask;
    body(Recurrence{s.time, s.channels, first, last < s.channels ? last : s.channels});
  });
}

template <int count>
class ShiftMix : public Kernel {
 public:
  explicit ShiftMix(const Node& node)
      : epsilon_(node.number("epsilon")), weight_(node, 2, "weight"), bias_(node, 3, "bias") {
    if (!(epsilon_ >= 0)) throw Refusal("attribute epsilon = " + std::to_string(epsilon_) + " is negative");
    for (int i = 0; i < count; ++i) mixes_.emplace_back(node, 4 + i, "mix");
  }

  void compute(const Call& call) override {
    const Tensor x = call.input(0);
    const Sequence s = sequence(x, "x");
    const Shape state{s.batch, s.channels};
    const float* weight = weight_.bind(call, s.channels);
    const float* bias = bias_.bind(call, s.channels);
    const float* mixes[count];
    float* outs[count];
    for (int i = 0; i < count; ++i) {
      mixes[i] = mixes_[i].bind(call, s.channels);
      outs[i] = static_cast<float*>(call.output(i, x.shape));
    }
    float* last = carried(call, 1, count, state, "before");
    for (int64_t b = 0; b < s.batch; ++b) {
      const Part part{s.data + b * s.row(), weight, bias, mixes, last + b * s.channels, s.time, s.channels};
      run(call, part, outs, b * s.row());
    }
  }

 private:
  struct Part {
    const float *x, *weight, *bias;
    const float* const* mixes;
    float* last;
    int64_t time, channels;
  };

  void run(const Call& call, const Part& p, float* const* outs, int64_t at) const {
    if (p.time * p.channels < kWorthElements) return piece(p, outs, at, 0, p.time, p.last);
    const size_t tasks = (p.time + kTokensPerTask - 1) / kTokensPerTask;
    std::vector<float> starts(tasks * p.channels);  // the row before each task's first; the last task's becomes the state
    std::memcpy(starts.data(), p.last, p.channels * sizeof(float));
    call.parallel(tasks, [&](size_t task) {
      const int64_t first = static_cast<int64_t>(task) * kTokensPerTask, last = first + kTokensPerTask;
      float* before = starts.data() + task * p.channels;
      if (first > 0)
        slmc_layer_norm_f32(p.x + (first - 1) * p.channels, p.weight, p.bias, before, p.channels, epsilon_);
      piece(p, outs, at, first, last < p.time ? last : p.time, before);
    });
    std::memcpy(p.last, starts.data() + (tasks - 1) * p.channels, p.channels * sizeof(float));
  }

  void piece(const Part& p, float* const* outs, int64_t at, int64_t first, int64_t last, float* before) const {
    float* rows[count];
    for (int i = 0; i < count; ++i) rows[i] = outs[i] + at + first * p.channels;
    slmc_shift_mix_f32(p.x + first * p.channels, p.weight, p.bias, p.mixes, rows, count, before, last - first,
                       p.channels, epsilon_);
  }

  float epsilon_;
  Vector weight_, bias_;
  std::vector<Vector> mixes_;
};

class GatedWkv : public Kernel {
 public:
  explicit GatedWkv(const Node& node) : decay_(node, 0, "decay"), first_(node, 1, "first") {}

  void compute(const Call& call) override {
    const Tensor key = call.input(2);
    const Sequence s = sequence(key, "key");
    const Shape state{s.batch, s.channels};
    const float* decay = decay_.bind(call, s.channels);
    const float* first = first_.bind(call, s.channels);
    const float* value = like(call, 3, key.shape, "value");
    const float* receptance = like(call, 4, key.shape, "receptance");
    auto* y = static_cast<float*>(call.output(0, key.shape));
    float* a = carried(call, 5, 1, state, "numerator");
    float* b = carried(call, 6, 2, state, "denominator");
    float* m = carried(call, 7, 3, state, "exponent");
    for (int64_t n = 0; n < s.batch; ++n) {
      const int64_t at = n * s.row(), row = n * s.channels;
      over_channels(call, s, [&](const Recurrence& range) {
        slmc_gated_wkv_f32(decay, first, s.data + at, value + at, receptance + at, a + row, b + row, m + row, y + at,
                           range);
      });
    }
  }

 private:
  Vector decay_, first_;
};

class SpikeAdd : public Kernel {
 public:
  SpikeAdd(const Node& node, bool gated)
      : neurons_{node.number("tau"), node.number("threshold"), node.number("reset")}, gated_(gated) {
    if (!(neurons_.tau > 0)) throw Refusal("attribute tau = " + std::to_string(neurons_.tau) + " is not positive");
  }

  void compute(const Call& call) override {
    const Tensor residual = call.input(0);
    const Sequence s = sequence(residual, "residual");
    const float* current = like(call, 1, residual.shape, "current");
    const float* receptance = gated_ ? like(call, 3, residual.shape, "receptance") : nullptr;
    auto* sum = static_cast<float*>(call.output(0, residual.shape));
    float* membrane = carried(call, 2, 1, {s.batch, s.channels}, "membrane");
    for (int64_t b = 0; b < s.batch; ++b) {
      const int64_t at = b * s.row();
      over_channels(call, s, [&](const Recurrence& range) {
        slmc_spike_add_f32(s.data + at, current + at, gated_ ? receptance + at : nullptr, membrane + b * s.channels,
                           sum + at, neurons_, range);
      });
    }
  }

 private:
  Lif neurons_;
  bool gated_;
};

class SquaredRelu : public Kernel {
 public:
  explicit SquaredRelu(const Node&) {}
  bool by_rows() const override { return true; }

  void compute(const Call& call) override {
    const Tensor x = call.input(0);
    auto* y = static_cast<float*>(call.output(0, x.shape));
    const int64_t count = x.shape.count();
    if (count < kWorthElements) return slmc_squared_relu_f32(x.as<float>(), y, count);
    call.parallel((count + kWorthElements - 1) / kWorthElements, [&](size_t task) {
      const int64_t first = static_cast<int64_t>(task) * kWorthElements, left = count - first;
      slmc_squared_relu_f32(x.as<float>() + first, y + first, left < kWorthElements ? left : kWorthElements);
    });
  }
};

}  // namespace

Operator shift_mix2_operator() {
  return {"ShiftMix2", floats({"x", "before", "weight", "bias", "mix_0", "mix_1"}), floats({"y_0", "y_1", "before_out"}),
          make_kernel<ShiftMix<2>>, shaped_like<0, 0, 1>};
}

Operator shift_mix3_operator() {
  return {"ShiftMix3", floats({"x", "before", "weight", "bias", "mix_0", "mix_1", "mix_2"}),
          floats({"y_0", "y_1", "y_2", "before_out"}),
          make_kernel<ShiftMix<3>>, shaped_like<0, 0, 0, 1>};
}

Operator gated_wkv_operator() {
  return {"GatedWkv", floats({"decay", "first", "key", "value", "receptance", "numerator", "denominator", "exponent"}),
          floats({"y", "numerator_out", "denominator_out", "exponent_out"}),
          make_kernel<GatedWkv>, shaped_like<2, 5, 6, 7>};
}

Operator spike_add_operator() {
  return {"SpikeAdd", floats({"residual", "current", "membrane"}), floats({"sum", "membrane_out"}),
          [](const Node& node) -> std::unique_ptr<Kernel> { return std::make_unique<SpikeAdd>(node, false); },
          shaped_like<0, 2>};
}

Operator gated_spike_add_operator() {
  return {"GatedSpikeAdd", floats({"residual", "current", "membrane", "receptance"}), floats({"sum", "membrane_out"}),
          [](const Node& node) -> std::unique_ptr<Kernel> { return std::make_unique<SpikeAdd>(node, true); },
          shaped_like<0, 2>};
}

Operator squared_relu_operator() {
  return {"SquaredRelu", floats({"x"}), floats({"y"}),
          make_kernel<SquaredRelu>, shaped_like<0>};
}

}  // namespace slmc
