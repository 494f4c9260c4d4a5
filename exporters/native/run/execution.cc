// One run of a graph, node after node.
#include <cstring>

#include "network.h"

namespace slmc::run {
namespace {

const char kNothing = 0;
constexpr size_t kMostMadeBytes = size_t{1} << 28;  // of one value: no model of ours comes near

// The last row of x [1, T, K].
Tensor last_row(const Tensor& x) {
  if (x.shape.rank != 3 || x.shape.dims[0] != 1 || x.shape.dims[1] < 2) return x;
  Tensor row = x;
  row.shape.dims[1] = 1;
  row.data = x.as<float>() + (x.shape.dims[1] - 1) * x.shape.dims[2];
  return row;
}

}  // namespace

bool GraphNode::constant(size_t index, Tensor* out) const {
  if (index >= inputs_.size() || inputs_[index] < 0) return false;
  const Network::Value& value = network_.values_[inputs_[index]];
  if (value.role != Network::kConstant) return false;
  *out = value.tensor;
  out->type = value.type;
  return true;
}

const AttributeRecord* GraphNode::find(const char* attribute, AttributeRecord::Kind kind) const {
  const auto found = record_.attributes.find(attribute);
  if (found == record_.attributes.end()) return nullptr;
  if (found->second.kind != kind) throw Refusal(std::string("attribute '") + attribute + "' has another type");
  return &found->second;
}

bool GraphNode::read_integer(const char* attribute, int64_t* out) const {
  const AttributeRecord* found = find(attribute, AttributeRecord::kInteger);
  if (found) *out = found->integer;
  return found;
}

bool GraphNode::read_number(const char* attribute, float* out) const {
  const AttributeRecord* found = find(attribute, AttributeRecord::kNumber);
  if (found) *out = found->number;
  return found;
}

bool GraphNode::read_text(const char* attribute, std::string* out) const {
  const AttributeRecord* found = find(attribute, AttributeRecord::kText);
  if (found) *out = found->text;
  return found;
}

std::string GraphNode::text_or(const char* attribute, const char* otherwise) const {
  const AttributeRecord* found = find(attribute, AttributeRecord::kText);
  return found ? found->text : otherwise;
}

std::vector<int64_t> GraphNode::integers_or(const char* attribute, std::vector<int64_t> otherwise) const {
  const AttributeRecord* found = find(attribute, AttributeRecord::kIntegers);
  return found ? found->integers : otherwise;
}

Tensor Step::input(size_t index) const { return network_->read_input(index_, index); }

size_t Step::inputs() const { return network_->steps_[index_].inputs.size(); }

int Step::type(size_t index) const {
  const std::vector<int>& inputs = network_->steps_[index_].inputs;
  return index < inputs.size() && inputs[index] >= 0 ? network_->values_[inputs[index]].type : 0;
}

void* Step::output(size_t index, const Shape& shape) const {
  return network_->make_output(index_, index, shape, network_->steps_[index_].ours->output(index)->type);
}

void* Step::output(size_t index, const Shape& shape, int type) const {
  return network_->make_output(index_, index, shape, type);
}

void Step::run_parallel(size_t tasks, void (*run)(void*, size_t), void* data) const {
  network_->pool_.run(tasks, run, data);
}

Tensor Network::read_input(int step, size_t index) const {
  const std::vector<int>& inputs = steps_[step].inputs;
  if (index >= inputs.size() || inputs[index] < 0) return {};
  const Value& value = values_[inputs[index]];
  Tensor tensor = step == row_wise_step_ && index == 0 && last_only_ ? last_row(value.tensor) : value.tensor;
  tensor.type = value.type;
  return tensor;
}

void* Network::make_output(int step, size_t index, const Shape& shape, int type) {
  if (index >= steps_[step].outputs.size()) throw Refusal("an output that the node does not have");
  Value& value = values_[steps_[step].outputs[index]];
  if (value.there && value.tensor.shape == shape) return const_cast<void*>(value.tensor.data);
  const size_t size = bytes_of(shape, type);
  if (size > kMostMadeBytes) throw Refusal("an output of shape " + shape.text() + " is larger than any that fits");
  value.tensor.shape = shape;
  value.type = type;
  value.there = true;
  if (value.role == kStateOut) {
    State& state = states_[value.state];
    if (type != state.record.type || !(shape == state.record.shape))
      throw Refusal("the state '" + state.record.output + "' comes out as " + shape.text() + ", manifest.json says " +
                    state.record.shape.text());
    value.tensor.data = state.next;
    return state.next;
  }
  if (value.block) value.block->taken = false;
  value.block = blocks_.take(size);
  value.tensor.data = value.block->data;
  return value.block->data;
}

void Network::bind_states() {
  for (const State& state : states_) {
    Value& value = values_[state.input];
    value.tensor.data = state.bytes ? static_cast<const void*>(state.now) : &kNothing;
    value.tensor.shape = state.record.shape;
    value.there = true;
  }
}

void Network::execute(bool last_only) {
  last_only_ = last_only;
  blocks_.release_all();
  for (Value& value : values_) {
    if (value.role == kConstant || value.role == kFed || value.role == kStateIn) continue;
    value.there = false;
    value.block = nullptr;
  }
  bind_states();
  for (size_t i = 0; i < steps_.size(); ++i) {
    Compiled& step = steps_[i];
    const Step call(this, static_cast<int>(i));
    try {
      for (size_t k = 0; k < step.inputs.size(); ++k) {
        if (step.inputs[k] < 0) continue;
        const Value& value = values_[step.inputs[k]];
        if (!value.there) throw Refusal("input " + std::to_string(k) + " was not made");
        const Port* port = step.ours ? step.ours->input(k) : nullptr;
        if (port && port->type != kAnyType && value.type != port->type)
          throw Refusal(std::string("input '") + port->name + "' has another type than the operator reads");
      }
      if (step.kernel) step.kernel->compute(call);
      else step.standard->compute(call);
    } catch (const Refusal& refusal) {
      throw Refusal(step.label + ": " + refusal.what());
    }
    for (const int dead : step.dying) {
      if (values_[dead].block) values_[dead].block->taken = false;
      values_[dead].block = nullptr;
    }
  }
  for (State& state : states_) {
    if (!values_[state.output].there) throw Refusal("the state '" + state.record.output + "' was not made");
    std::swap(state.now, state.next);
  }
}

void Network::run(const int64_t* tokens, size_t count, Asked asked) {
  const bool none = asked == Asked::kNone && logits_from_ >= 0;
  const int64_t first = none ? static_cast<int64_t>(count) : asked == Asked::kEvery ? 0 : -1;
  if (logits_from_ >= 0) set_input(logits_from_, kInt64, {1}, &first);
  set_input(tokens_, kInt64, {1, static_cast<int64_t>(count)}, tokens);
  execute(asked != Asked::kEvery);
  const Value& made = values_[logits_];
  if (!made.there || made.type != kFloat || made.tensor.shape.rank != 3 || (made.tensor.shape.count() < 1 && !none))
    throw Refusal("model.onnx: logits are no float32 [1, T, V]");
}

void Network::feed(const std::string& name, int type, const Shape& shape, const void* data) {
  const int index = value_named(name);
  if (values_[index].role != kFed) throw Refusal("'" + name + "' is no input of the graph");
  set_input(index, type, shape, data ? data : &kNothing);
}

void Network::set_input(int index, int type, const Shape& shape, const void* data) {
  Value& value = values_[index];
  value.tensor.data = data;
  value.tensor.shape = shape;
  value.type = type;
  value.there = true;
}

void Network::run_fed() { execute(false); }

const Tensor& Network::value(const std::string& name) const {
  const auto found = names_.find(name);
  if (found == names_.end() || !values_[found->second].there) throw Refusal("there is no value '" + name + "'");
  return values_[found->second].tensor;
}

int Network::type_of(const std::string& name) const { return values_[names_.at(name)].type; }

}  // namespace slmc::run
