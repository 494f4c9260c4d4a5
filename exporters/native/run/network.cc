// How a graph is checked and made ready to run.
#include "network.h"

#include <algorithm>
#include <cstring>

namespace slmc::run {
namespace {

constexpr uint64_t kMostStateBytes = std::min<uint64_t>(uint64_t{1} << 40, SIZE_MAX / 2);
const char kNothing = 0;  // an empty tensor may have no bytes, but it is there

// A node's operator: its name alone, or with a number behind it where a graph has several bodies of one operator.
const Operator* our_operator(const std::string& name) {
  const size_t dash = name.rfind('_');
  const bool numbered = dash != std::string::npos && dash + 1 < name.size() &&
                        name.find_first_not_of("0123456789", dash + 1) == std::string::npos;
  for (const Operator& op : all_operators())
    if (name == op.name || (numbered && op.many_bodies && name.compare(0, dash, op.name) == 0)) return &op;
  return nullptr;
}

bool row_wise(const std::string& name) {
  return name == "QLinear" || name == "TableLinear" || name == "HalfLinear" || name == "SparseLinear" || name == "EventLinear";
}

// Whether a graph says another shape of an input than the manifest; before memory is taken for it.
bool contradicts(const Shape& graph, const Shape& manifest) {
  if (graph.rank == 0) return false;
  for (size_t i = 0; i < graph.rank && graph.rank == manifest.rank; ++i)
    if (graph.dims[i] >= 0 && graph.dims[i] != manifest.dims[i]) return true;
  return graph.rank != manifest.rank;
}

template <typename T>
void fill(uint8_t* memory, size_t bytes, double value) {
  auto* first = reinterpret_cast<T*>(memory);
  std::fill(first, first + bytes / sizeof(T), static_cast<T>(value));
}

}  // namespace

Network::Network(const ModelRecord& model, const IoRecord& io, int threads) : pool_(threads) {
  add_constants(model);
  for (const PortRecord& port : model.inputs)
    if (!names_.count(port.name)) values_[define(port.name, kFed)].type = port.type;
  add_states(model, io);
  add_steps(model);
  for (const PortRecord& port : model.outputs) {
    Value& value = values_[value_named(port.name)];
    if (value.role == kMade) value.role = kAsked;
  }
  if (!io.tokens.empty()) {
    tokens_ = value_named(io.tokens);
    logits_ = value_named(io.logits);
    if (!io.logits_from.empty()) logits_from_ = value_named(io.logits_from);
    if (logits_from_ >= 0 && values_[logits_from_].role != kFed)
      throw Refusal("model.onnx: '" + io.logits_from + "' is no input of the graph");
    if (values_[tokens_].role != kFed) throw Refusal("model.onnx: '" + io.tokens + "' is no input of the graph");
    if (values_[logits_].role != kAsked) throw Refusal("model.onnx: '" + io.logits + "' is no output of the graph");
  }
  plan();
  allocate_states();
  reset();
}

int Network::value_named(const std::string& name) {
  const auto found = names_.find(name);
  if (found == names_.end()) throw Refusal("model.onnx: nothing makes '" + name + "'");
  return found->second;
}

int Network::define(const std::string& name, Role role) {
  const int index = static_cast<int>(values_.size());
  if (!name.empty() && !names_.emplace(name, index).second)
    throw Refusal("model.onnx: two things make '" + name + "'");
  values_.emplace_back();
  values_.back().role = role;
  return index;
}

void Network::add_constants(const ModelRecord& model) {
  for (const TensorRecord& record : model.tensors) {
    Value& value = values_[define(record.name, kConstant)];
    value.type = record.type;
    value.there = true;
    value.tensor.shape = record.shape;
    value.tensor.data = record.bytes.size ? static_cast<const void*>(record.bytes.data) : &kNothing;
  }
}

void Network::add_states(const ModelRecord& model, const IoRecord& io) {
  for (const StateRecord& record : io.states) {
    State state{record};
    state.input = value_named(record.input);
    if (values_[state.input].role != kFed)
      throw Refusal("model.onnx: state '" + record.input + "' is no input of the graph");
    if (values_[state.input].type != record.type)
      throw Refusal("model.onnx: state '" + record.input + "' has another type than manifest.json says");
    for (const PortRecord& port : model.inputs)
      if (port.name == record.input && contradicts(port.shape, record.shape))
        throw Refusal("model.onnx: state '" + record.input + "' is " + port.shape.text() + ", manifest.json says " +
                      record.shape.text());
    state.bytes = bytes_of(record.shape, record.type);
    values_[state.input].role = kStateIn;
    values_[state.input].state = static_cast<int>(states_.size());
    states_.push_back(std::move(state));
  }
}

void Network::add_steps(const ModelRecord& model) {
  for (const NodeRecord& record : model.nodes) {
    Compiled step;
    step.label = record.label();
    for (const std::string& name : record.inputs) {
      step.inputs.push_back(name.empty() ? -1 : value_named(name));
      if (!name.empty()) ++values_[step.inputs.back()].consumers;
    }
    compile(record, &step);
    for (const std::string& name : record.outputs) step.outputs.push_back(define(name, kMade));
    if (step.ours) check_ports(*step.ours, step);
    steps_.push_back(std::move(step));
  }
  for (size_t i = 0; i < states_.size(); ++i) {
    State& state = states_[i];
    state.output = value_named(state.record.output);
    Value& value = values_[state.output];
    if (value.role != kMade) throw Refusal("model.onnx: no node makes the state '" + state.record.output + "'");
    value.role = kStateOut;
    value.state = static_cast<int>(i);
  }
}

void Network::compile(const NodeRecord& record, Compiled* step) {
  const GraphNode node(*this, record, step->inputs);
  try {
    if (record.domain == kDomain) {
      step->ours = our_operator(record.type);
      if (step->ours) step->kernel = step->ours->create(node);
    } else if (record.domain.empty()) {
      step->standard = make_standard(record.type, node);
    }
  } catch (const Refusal& refusal) {
    throw Refusal(step->label + ": " + refusal.what());
  }
  if (!step->kernel && !step->standard)
    throw Refusal("model.onnx: slmc-run has no operator " + step->label + "; run this artifact with ONNX Runtime");
}

void Network::check_ports(const Operator& op, const Compiled& step) const {
  std::vector<bool> there;
  for (const int value : step.inputs) there.push_back(value >= 0);
  try {
    expect_ports(op, there, step.outputs.size());
  } catch (const Refusal& refusal) {
    throw Refusal(step.label + ": " + refusal.what());
  }
}

// Which values die where; the operators that have outputs left out get values for them.
void Network::plan() {
  std::vector<int> last_reader(values_.size(), -1);
  for (size_t i = 0; i < steps_.size(); ++i) {
    Compiled& step = steps_[i];
    while (step.ours && step.outputs.size() < step.ours->outputs.size()) step.outputs.push_back(define("", kMade));
    last_reader.resize(values_.size(), -1);
    for (const int value : step.outputs) last_reader[value] = static_cast<int>(i);
    for (const int value : step.inputs)
      if (value >= 0) last_reader[value] = static_cast<int>(i);
  }
  for (size_t value = 0; value < values_.size(); ++value)
    if (values_[value].role == kMade && last_reader[value] >= 0)
      steps_[last_reader[value]].dying.push_back(static_cast<int>(value));
  for (size_t i = 0; i < steps_.size(); ++i) {
    const Compiled& step = steps_[i];
    if (logits_ >= 0 && step.ours && row_wise(step.ours->name) && step.outputs[0] == logits_)
      row_wise_step_ = static_cast<int>(i);
  }
}

// One memory for what comes in and what goes out: only if a single node of ours reads it and makes what follows.
bool Network::may_share(const State& state) const {
  if (!state.record.in_place || values_[state.input].consumers != 1) return false;
  const auto has = [](const std::vector<int>& some, int value) {
    return std::find(some.begin(), some.end(), value) != some.end();
  };
  for (const Compiled& step : steps_)
    if (step.ours && has(step.inputs, state.input)) return has(step.outputs, state.output);
  return false;
}

void Network::allocate_states() {
  constexpr size_t kAlignment = 64;
  const auto padded = [](size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; };
  uint64_t total = kAlignment;
  for (const State& state : states_) {
    state_bytes_ += state.bytes;
    total += padded(state.bytes) * (may_share(state) ? 1 : 2);
    if (total > kMostStateBytes) throw Refusal("manifest.json: states larger than any memory");
  }
  state_memory_.reset(new uint8_t[static_cast<size_t>(total)]);
  const auto address = reinterpret_cast<uintptr_t>(state_memory_.get());
  uint8_t* next = state_memory_.get() + (padded(address) - address);
  for (State& state : states_) {
    state.now = next;
    next += padded(state.bytes);
    state.next = may_share(state) ? state.now : next;
    if (state.next == next) next += padded(state.bytes);
  }
}

void Network::reset() {
  for (State& state : states_) {
    const double value = state.record.fill;
    if (state.record.type == kFloat) fill<float>(state.now, state.bytes, value);
    else if (state.record.type == kInt64) fill<int64_t>(state.now, state.bytes, value);
    else if (state.record.type == kFloat16) fill<uint16_t>(state.now, state.bytes, value);  // 0 alone
    else fill<int8_t>(state.now, state.bytes, value);
  }
}

void Network::save(uint8_t* states) const {
  for (const State& state : states_) {
    std::memcpy(states, state.now, state.bytes);
    states += state.bytes;
  }
}

void Network::restore(const uint8_t* states) {
  for (State& state : states_) {
    std::memcpy(state.now, states, state.bytes);
    states += state.bytes;
  }
}

}  // namespace slmc::run
