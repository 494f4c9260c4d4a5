// Fused: several operators in one node, step by step as its attribute `steps` says (exporters/ops/steps.py).
//
// Every step is the kernel that its operator has as a node of its own. What only steps read lies in memory of this
// thread, in pieces that are used again as soon as nothing reads them any more. Products that stand side by side are one
// piece of work: inputs are made ready once for all of them, and their tasks are handed out together. Steps that go through
// rows one by one are done strip by strip (fused_strips.h).
#include <algorithm>
#include <limits>

#include "fused_strips.h"
#include "products.h"
#include "steps.h"

namespace slmc {
namespace {

// A step while its kernel is made.
class PartNode final : public Node {
 public:
  PartNode(const StepRecord& step, const std::vector<Tensor>& constants) : step_(step), constants_(constants) {}

  bool constant(size_t index, Tensor* out) const override {
    const int value = index < step_.inputs.size() ? step_.inputs[index] : -1;
    if (value < 0 || !constants_[value].data) return false;
    const Port* port = step_.op->input(index);
    if (constants_[value].type != port->type)
      throw Refusal(std::string("input '") + port->name + "' has another type than the operator reads");
    *out = constants_[value];
    return true;
  }

 private:
  const std::string* find(const char* attribute) const {
    const auto found = step_.attributes.find(attribute);
    return found == step_.attributes.end() ? nullptr : &found->second;
  }
  bool read_integer(const char* attribute, int64_t* out) const override {
    const std::string* text = find(attribute);
    if (!text || text->empty() || text->size() > 18) return false;
    int64_t value = 0;
    for (size_t i = (*text)[0] == '-'; i < text->size(); ++i) {
      if ((*text)[i] < '0' || (*text)[i] > '9') return false;
      value = 10 * value + ((*text)[i] - '0');
    }
    *out = (*text)[0] == '-' ? -value : value;
    return true;
  }
  bool read_number(const char* attribute, float* out) const override {
    const std::string* text = find(attribute);
    return text && read_hexadecimal(*text, out);
  }
  bool read_text(const char* attribute, std::string* out) const override {
    const std::string* text = find(attribute);
    if (text) *out = *text;
    return text;
  }

  const StepRecord& step_;
  const std::vector<Tensor>& constants_;
};

// A step while it runs.
class PartCall final : public Call {
 public:
  PartCall() = default;
  PartCall(const Call& call, const Part& part, const Fixed& fixed, Values& values)
      : call_(&call), part_(&part), fixed_(&fixed), values_(&values) {}

  Tensor input(size_t index) const override {
    const int value = index < part_->inputs.size() ? part_->inputs[index] : -1;
    if (value < 0) return {};
    const Tensor& constant = fixed_->constants[value];
    return constant.data ? constant : values_->tensors[value];
  }
  const void* data(size_t index) const override { return input(index).data; }

  void* output(size_t index, const Shape& shape) const override {
    const size_t value = static_cast<size_t>(part_->made) + index;
    Tensor& tensor = values_->tensors[value];
    if (tensor.data && tensor.shape == shape) return const_cast<void*>(tensor.data);
    const int given = fixed_->given[value];
    void* memory = given >= 0 ? call_->output(static_cast<size_t>(given), shape) : taken(value, shape);
    tensor.data = memory;
    tensor.shape = shape;
    tensor.type = kFloat;
    return memory;
  }

 private:
  void* taken(size_t value, const Shape& shape) const {
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();  // bytes: no model of ours comes near
    const int64_t bytes = shape.count() * static_cast<int64_t>(sizeof(float));
    if (bytes < 0 || bytes > kMost) throw Refusal("a step makes " + shape.text() + ", which is too large");
    if (values_->pieces[value] >= 0) values_->memory.give_back(values_->pieces[value]);
    return values_->memory.take(static_cast<size_t>(bytes), &values_->pieces[value]);
  }
  void run_parallel(size_t tasks, void (*run)(void*, size_t), void* data) const override {
    struct Erased {
      void (*run)(void*, size_t);
      void* data;
    } erased{run, data};
    call_->parallel(tasks, [erased](size_t task) { erased.run(erased.data, task); });
  }

  const Call* call_ = nullptr;
  const Part* part_ = nullptr;
  const Fixed* fixed_ = nullptr;
  Values* values_ = nullptr;
};

class Fused : public Kernel {
 public:
  explicit Fused(const Node& node) : record_(read_steps(node.text("steps"))) {
    fixed_.constants.resize(record_.values);
    for (int i = 0; i < record_.inputs; ++i) node.constant(i, &fixed_.constants[i]);
    fixed_.given.assign(record_.values, -1);
    for (size_t i = 0; i < record_.outputs.size(); ++i) fixed_.given[record_.outputs[i]] = static_cast<int>(i);
    for (const StepRecord& step : record_.steps) add(step);
    plan();
  }

  void compute(const Call& call) override {
    Values& values = values_of_this_thread();
    values.memory.free_all();
    values.pieces.assign(record_.values, -1);
    values.tensors.resize(record_.values);
    for (int value = record_.inputs; value < record_.values; ++value) values.tensors[value].data = nullptr;
    for (const Fed& fed : fed_) {
      Tensor& tensor = values.tensors[fed.value];
      tensor = call.input(static_cast<size_t>(fed.value));
      if (!tensor.data) throw Refusal("input " + std::to_string(fed.value) + " is missing");
      if (tensor.type != fed.type)
        throw Refusal("input " + std::to_string(fed.value) + " has element type " + std::to_string(tensor.type) +
                      ", expected " + std::to_string(fed.type));
    }
    for (size_t i = 0; i < parts_.size();) i += run(call, values, i);
  }

 private:
  struct Fed {
    int value, type;
  };
  static constexpr size_t kMostTogether = 8;

  void add(const StepRecord& step) {
    Part part;
    try {
      part.kernel = step.op->create(PartNode(step, fixed_.constants));
    } catch (const Refusal& refusal) {
      throw Refusal(step.type + ": " + refusal.what());
    }
    part.product = part.kernel->product();
    part.inputs = step.inputs;
    part.made = step.made;
    for (size_t i = 0; i < step.inputs.size(); ++i) {
      const int value = step.inputs[i];
      if (value >= 0 && value < record_.inputs && !fixed_.constants[value].data)
        fed_.push_back({value, step.op->input(i)->type});
    }
    parts_.push_back(std::move(part));
  }

  // Which values die where, and which products go together.
  void plan() {
    std::vector<size_t> last(record_.values, 0);
    for (size_t i = 0; i < parts_.size(); ++i) {
      const int next = i + 1 < parts_.size() ? parts_[i + 1].made : record_.values;
      for (int value = parts_[i].made; value < next; ++value) last[value] = i;
      for (const int value : parts_[i].inputs)
        if (value >= 0) last[value] = i;
    }
    for (int value = record_.inputs; value < record_.values; ++value)
      if (fixed_.given[value] < 0) parts_[last[value]].dying.push_back(value);
    for (size_t i = 0; i < parts_.size(); i += parts_[i].together)
      while (parts_[i].product && i + parts_[i].together < parts_.size() && parts_[i].together < kMostTogether &&
             independent(parts_[i + parts_[i].together], parts_[i].made))
        ++parts_[i].together;
    for (size_t i = 0; i < parts_.size(); i += parts_[i].strips) plan_strips(i, last);
  }

  // last: the part that reads a value last.
  void plan_strips(size_t from, const std::vector<size_t>& last) {
    size_t end = from;
    while (end < parts_.size() && parts_[end].kernel->by_rows()) ++end;
    if (end - from < 2) return;
    parts_[from].strips = end - from;
    for (size_t i = from; i < end; ++i) parts_[i].local = fixed_.given[parts_[i].made] < 0 && last[parts_[i].made] < end;
  }

  // Whether it is a product that reads nothing made from there on.
  static bool independent(const Part& part, int made) {
    return part.product && std::none_of(part.inputs.begin(), part.inputs.end(), [made](int value) { return value >= made; });
  }

  // Returns how many parts it ran.
  size_t run(const Call& call, Values& values, size_t from) const {
    const Part* first = &parts_[from];
    const Strips strips(first, first->strips, fixed_, values);
    const size_t count = strips.worthwhile() ? first->strips : first->together;
    size_t at = from;
    try {
      if (strips.worthwhile()) {
        for (; at < from + count; ++at)
          if (!parts_[at].local) PartCall(call, parts_[at], fixed_, values).output(0, strips.whole());
        strips.run(call);
      } else if (count == 1) {
        first->kernel->compute(PartCall(call, *first, fixed_, values));
      } else {
        Work works[kMostTogether];
        Arena& arena = call_arena();
        ReadyInputs ready;
        for (; at < from + count; ++at)
          works[at - from] = parts_[at].product->begin(PartCall(call, parts_[at], fixed_, values), arena, ready);
        run_works(call, works, count);
      }
    } catch (const Refusal& refusal) {
      throw Refusal(record_.steps[at].type + ": " + refusal.what());
    }
    for (size_t i = from; i < from + count; ++i) forget_dying(parts_[i], values);
    return count;
  }

  static void forget_dying(const Part& part, Values& values) {
    for (const int value : part.dying) {
      if (values.pieces[value] < 0) continue;
      values.memory.give_back(values.pieces[value]);
      values.pieces[value] = -1;
    }
  }

  StepsRecord record_;
  Fixed fixed_;
  std::vector<Fed> fed_;
  std::vector<Part> parts_;
};

}  // namespace

Operator fused_operator() {
  return {"Fused",
          {{"inputs", kAnyType, kVariadic}},
          {{"outputs", kFloat, kVariadic}},
          [](const Node& node) -> std::unique_ptr<Kernel> { return std::make_unique<Fused>(node); },
          [](const Inference&) {},
          true};
}

}  // namespace slmc
