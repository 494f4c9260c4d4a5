// A graph that runs: its values, its buffers, its states.
#pragma once
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "blocks.h"
#include "onnx_file.h"
#include "operator.h"
#include "pool.h"
#include "step.h"

namespace slmc::run {

// A state as the manifest says it.
struct StateRecord {
  std::string input, output;
  Shape shape;
  int type = 0;
  double fill = 0;
  bool in_place = false;
};

// Names of what is fed and asked for.
struct IoRecord {
  std::string tokens, logits, logits_from;  // the last is empty where the graph gives logits of every token
  std::vector<StateRecord> states;
};

class Network {
 public:
  // Raises Refusal where the graph is not sound or needs an operator that there is not. The record must outlive it.
  Network(const ModelRecord& model, const IoRecord& io, int threads);

  // Every state as before the first token.
  void reset();
  // Whose logits the caller reads, of the tokens of a call; more may be made.
  enum class Asked { kEvery, kLast, kNone };
  // Feeds tokens; the states move on only if all goes well.
  void run(const int64_t* tokens, size_t count, Asked asked);
  // float32, of the last run; valid until the next.
  const Tensor& logits() const { return values_[logits_].tensor; }

  size_t state_bytes() const { return state_bytes_; }
  void save(uint8_t* states) const;
  void restore(const uint8_t* states);

  // For graphs of any inputs and outputs (tests): by name.
  void feed(const std::string& name, int type, const Shape& shape, const void* data);
  void run_fed();
  const Tensor& value(const std::string& name) const;
  int type_of(const std::string& name) const;

 private:
  friend class GraphNode;
  friend class Step;

  enum Role : uint8_t { kMade, kConstant, kFed, kStateIn, kStateOut, kAsked };
  struct Value {
    Tensor tensor;
    int type = 0;
    Role role = kMade;
    bool there = false;  // in this run
    int state = -1;
    int consumers = 0;
    Block* block = nullptr;
  };
  struct Compiled {
    std::string label;
    const Operator* ours = nullptr;
    std::unique_ptr<Kernel> kernel;
    std::unique_ptr<Standard> standard;
    std::vector<int> inputs, outputs, dying;  // dying: values that nothing reads after this step
  };
  struct State {
    StateRecord record;
    int input = -1, output = -1;
    size_t bytes = 0;
    uint8_t *now = nullptr, *next = nullptr;  // the same memory where in place
  };

  int value_named(const std::string& name);
  int define(const std::string& name, Role role);
  void add_constants(const ModelRecord& model);
  void add_states(const ModelRecord& model, const IoRecord& io);
  void add_steps(const ModelRecord& model);
  void compile(const NodeRecord& record, Compiled* step);
  void check_ports(const Operator& op, const Compiled& step) const;
  void plan();
  bool may_share(const State& state) const;
  void allocate_states();
  void bind_states();
  void set_input(int index, int type, const Shape& shape, const void* data);
  void execute(bool last_only);
  void* make_output(int step, size_t index, const Shape& shape, int type);
  Tensor read_input(int step, size_t index) const;

  std::vector<Value> values_;
  std::unordered_map<std::string, int> names_;
  std::vector<Compiled> steps_;
  std::vector<State> states_;
  std::unique_ptr<uint8_t[]> state_memory_;
  size_t state_bytes_ = 0;
  int tokens_ = -1, logits_ = -1, logits_from_ = -1;
  int row_wise_step_ = -1;  // the step that makes logits of each row of its first input by itself, if there is one
  bool last_only_ = false;
  Blocks blocks_;
  Pool pool_;
};

}  // namespace slmc::run
