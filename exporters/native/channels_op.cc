// Plif, LinearRecurrence and DeltaRule: the bodies of neurons.cc and matrix_states.cc, the same that torch calls.
#include "operator.h"
#include "recurrences.h"

namespace slmc {
namespace {

// A parameter's values, one number repeated for all channels; `repeated` holds them then.
const float* values_of(const Tensor& parameter, int64_t channels, std::vector<float>* repeated) {
  if (parameter.shape.rank) return parameter.as<float>();
  repeated->assign(channels, parameter.as<float>()[0]);
  return repeated->data();
}

// Whether a parameter has a value for every step of `sequence`; raises where it is neither that nor [channels] nor [].
bool of_every_step(const Tensor& parameter, const Shape& sequence, const char* what) {
  if (parameter.shape == sequence) return true;
  if (parameter.shape == Shape{sequence.last()} || parameter.shape.rank == 0) return false;
  throw Refusal(std::string("input '") + what + "' is " + parameter.shape.text() + ", expected " + sequence.text() +
                ", [" + std::to_string(sequence.last()) + "] or a number");
}

void expect_sequence(const Tensor& tensor, const char* what) {
  if (tensor.shape.rank != 3)
    throw Refusal(std::string("input '") + what + "' is " + tensor.shape.text() + ", expected [batch, time, channels]");
}

class Plif : public Kernel {
 public:
  explicit Plif(const Node& node)
      : low_(node.number("low")), high_(node.number("high")), reset_(node.number("reset")),
        soft_(node.zero_or_one("soft")), membranes_(node.zero_or_one("membranes")) {
    if (!(low_ < high_))
      throw Refusal("attribute low = " + std::to_string(low_) + " is not below high = " + std::to_string(high_));
  }

  void compute(const Call& call) override {
    const Tensor current = call.input(0), membrane = call.input(5);
    expect_sequence(current, "current");
    const int64_t *dims = current.shape.dims, channels = current.shape.last();
    expect_shape(membrane, {dims[0], channels}, "membrane");
    constexpr const char* names[] = {"decay", "gain", "threshold", "drop"};
    const float* parameters[4];
    std::vector<float> repeated[4];
    int64_t each = 0;
    for (int i = 0; i < 4; ++i) {
      const Tensor tensor = call.input(1 + i);
      parameters[i] = values_of(tensor, channels, &repeated[i]);
      if (of_every_step(tensor, current.shape, names[i])) each |= int64_t{1} << i;
    }
    auto* y = static_cast<float*>(call.output(0, current.shape));
    auto* after = static_cast<float*>(call.output(1, membrane.shape));
    slmc_plif_f32(current.as<float>(), parameters[0], parameters[1], parameters[2], parameters[3], membrane.as<float>(),
                  y, after, dims[0], dims[1], channels, each, low_, high_, reset_, soft_, membranes_);
  }

 private:
  float low_, high_, reset_, soft_, membranes_;
};

class LinearRecurrence : public Kernel {
 public:
  explicit LinearRecurrence(const Node&) {}

  void compute(const Call& call) override {
    const Tensor decay = call.input(0), current = call.input(1), state = call.input(2);
    expect_sequence(current, "current");
    const int64_t *dims = current.shape.dims, channels = current.shape.last();
    expect_shape(state, {dims[0], channels}, "state");
    const bool each = of_every_step(decay, current.shape, "decay");
    std::vector<float> repeated;
    const float* kept = values_of(decay, channels, &repeated);
    auto* y = static_cast<float*>(call.output(0, current.shape));
    auto* after = static_cast<float*>(call.output(1, state.shape));
    slmc_linear_recurrence_f32(kept, current.as<float>(), state.as<float>(), y, after, dims[0], dims[1],
                               channels, each);
  }
};

class DeltaRule : public Kernel {
 public:
  explicit DeltaRule(const Node&) {}

  void compute(const Call& call) override {
    constexpr const char* names[] = {"query", "decay", "key", "value", "removed", "rate"};
    const Tensor query = call.input(0), state = call.input(6);
    expect_sequence(query, "query");
    if (state.shape.rank != 4 || state.shape.dims[1] < 1 || state.shape.dims[2] < 1 ||
        state.shape.dims[2] != state.shape.dims[3])
      throw Refusal("input 'state' is " + state.shape.text() + ", expected [batch, states, width, width]");
    const int64_t states = state.shape.dims[1], width = state.shape.dims[3];
    const int64_t batch = query.shape.dims[0], time = query.shape.dims[1], heads = query.shape.last() / width;
    if (batch != state.shape.dims[0] || heads * width != query.shape.last() || heads % states)
      throw Refusal("input 'query' is " + query.shape.text() + ", of which state " + state.shape.text() +
                    " serves no heads");
    const float* inputs[6] = {query.as<float>()};
    for (int i = 1; i < 6; ++i) {
      const Tensor tensor = call.input(i);
      expect_shape(tensor, {batch, time, states * width}, names[i]);
      inputs[i] = tensor.as<float>();
    }
    auto* y = static_cast<float*>(call.output(0, query.shape));
    auto* after = static_cast<float*>(call.output(1, state.shape));
    slmc_delta_rule_f32(inputs[0], inputs[1], inputs[2], inputs[3], inputs[4], inputs[5], state.as<float>(), y, after,
                        batch, time, heads, states, width);
  }
};

}  // namespace

Operator plif_operator() {
  return {"Plif", floats({"current", "decay", "gain", "threshold", "drop", "membrane"}),
          floats({"y", "membrane_out"}), make_kernel<Plif>, shaped_like<0, 5>};
}

Operator linear_recurrence_operator() {
  return {"LinearRecurrence", floats({"decay", "current", "state"}), floats({"y", "state_out"}), make_kernel<LinearRecurrence>,
          shaped_like<1, 2>};
}

Operator delta_rule_operator() {
  return {"DeltaRule", floats({"query", "decay", "key", "value", "removed", "rate", "state"}),
          floats({"y", "state_out"}), make_kernel<DeltaRule>, shaped_like<0, 6>};
}

}  // namespace slmc
