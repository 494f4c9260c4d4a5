// What an operator of ours is to its host: a table of ports, a shape rule and a kernel; refusals become the host's errors.
//
// Hosts are ONNX Runtime (host_ort.cc) and our own runtime (run/).
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace slmc {

constexpr const char* kDomain = "ai.slmc";

// Numbered as in ONNX.
enum ElementType : int { kAnyType = 0, kFloat = 1, kUint8 = 2, kInt8 = 3, kInt64 = 7, kBool = 9, kFloat16 = 10 };
enum Presence : int { kRequired = 0, kOptional = 1, kVariadic = 2 };  // variadic: the last port, for one or more

// A node or call that cannot be served; the text reaches the user.
struct Refusal : std::runtime_error {
  using std::runtime_error::runtime_error;
};

constexpr size_t kMaxRank = 8;

struct Shape {
  int64_t dims[kMaxRank] = {};
  size_t rank = 0;

  Shape() = default;
  Shape(std::initializer_list<int64_t> values);
  int64_t count() const;
  int64_t last() const { return rank ? dims[rank - 1] : 1; }
  bool operator==(const Shape& other) const;
  std::string text() const;
};

// One tensor as the runtime holds it; `data` is null for an optional input that is not there.
struct Tensor {
  const void* data = nullptr;
  Shape shape;
  int type = kAnyType;

  template <typename T>
  const T* as() const { return static_cast<const T*>(data); }
};

// Raises unless `tensor` has the shape that the operator's law asks for.
void expect_shape(const Tensor& tensor, const Shape& expected, const char* what);

// A node while its kernel is made.
class Node {
 public:
  int64_t integer(const char* attribute) const;  // raises where it is missing
  int64_t integer_or(const char* attribute, int64_t otherwise) const;
  float number(const char* attribute) const;  // raises where it is missing
  float number_or(const char* attribute, float otherwise) const;
  float zero_or_one(const char* attribute) const;  // raises where it is missing, or another number
  std::string text(const char* attribute) const;  // empty where it is missing
  // The input if it is an initializer, whose bytes stay where they are while the host lives.
  virtual bool constant(size_t index, Tensor* out) const = 0;

 protected:
  ~Node() = default;
  // False, and `out` as it was, where the node has no such attribute.
  virtual bool read_integer(const char* attribute, int64_t* out) const = 0;
  virtual bool read_number(const char* attribute, float* out) const = 0;
  virtual bool read_text(const char* attribute, std::string* out) const = 0;
};

// One execution of a node.
class Call {
 public:
  virtual Tensor input(size_t index) const = 0;
  // Pointer alone, for inputs whose shape was checked before.
  virtual const void* data(size_t index) const = 0;
  virtual void* output(size_t index, const Shape& shape) const = 0;

  // Runs task(0) .. task(tasks - 1) on the host's threads; tasks must not throw.
  template <typename Task>
  void parallel(size_t tasks, const Task& task) const {
    if (tasks == 1) return task(0);
    run_parallel(tasks, [](void* erased, size_t i) { (*static_cast<const Task*>(erased))(i); },
                 const_cast<Task*>(&task));
  }

 protected:
  ~Call() = default;
  virtual void run_parallel(size_t tasks, void (*run)(void*, size_t), void* data) const = 0;
};

class Product;

class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void compute(const Call& call) = 0;
  virtual const Product* product() const { return nullptr; }  // itself, if it can share a call (products.h)
  virtual bool by_rows() const { return false; }  // whether a row of its output needs those rows of its inputs alone
};

template <typename Made>
std::unique_ptr<Kernel> make_kernel(const Node& node) {
  return std::make_unique<Made>(node);
}

struct Port {
  const char* name;
  ElementType type;
  Presence presence = kRequired;
};

// A shape while it is inferred: unknown sizes are -1 with a symbol's name, or with none.
struct SymbolicShape {
  std::vector<int64_t> dims;
  std::vector<const char*> symbols;
};

// Shape rules read inputs and write outputs here; what is not written stays unknown.
class Inference {
 public:
  virtual SymbolicShape input(size_t index) const = 0;
  virtual int64_t integer(const char* attribute) const = 0;
  virtual void output(size_t index, const SymbolicShape& shape, ElementType type) const = 0;

 protected:
  ~Inference() = default;
};

struct Operator {
  const char* name;
  std::vector<Port> inputs;
  std::vector<Port> outputs;
  std::unique_ptr<Kernel> (*create)(const Node&);
  void (*infer)(const Inference&);
  bool many_bodies = false;  // whether its function body depends on a node's attributes or shapes

  // The port of an input or output; null where there is none.
  const Port* input(size_t index) const { return port(inputs, index); }
  const Port* output(size_t index) const { return port(outputs, index); }

 private:
  static const Port* port(const std::vector<Port>& ports, size_t index) {
    if (index < ports.size()) return &ports[index];
    return !ports.empty() && ports.back().presence == kVariadic ? &ports.back() : nullptr;
  }
};

std::vector<Port> floats(std::initializer_list<const char*> names);

// A shape rule: outputs, floats, have the shapes of these inputs, in order.
template <size_t... inputs>
void shaped_like(const Inference& inference) {
  size_t output = 0;
  (inference.output(output++, inference.input(inputs), kFloat), ...);
}

// Refuses a node of an operator that lacks a required input, or has more inputs or outputs than it takes. `there`: which
// inputs are not left out.
void expect_ports(const Operator& op, const std::vector<bool>& there, size_t outputs);

// All operators, in the order in which hosts name them.
const std::vector<Operator>& all_operators();

// The operators of each family; catalog.cc lists them.
Operator qlinear_operator();
Operator table_linear_operator();
Operator half_linear_operator();
Operator qembedding_operator();
Operator table_embedding_operator();
Operator sign_embedding_operator();
Operator lif_operator();
Operator wkv_operator();
Operator cached_attention_operator();
Operator cached_attention_half_operator();
Operator cached_attention_int8_operator();
Operator sparse_linear_operator();
Operator rms_norm_operator();
Operator shift_mix2_operator();
Operator shift_mix3_operator();
Operator gated_wkv_operator();
Operator spike_add_operator();
Operator gated_spike_add_operator();
Operator squared_relu_operator();
Operator event_linear_operator();
Operator integrate_fire_operator();
Operator fused_operator();
Operator plif_operator();
Operator linear_recurrence_operator();
Operator delta_rule_operator();
Operator anchored_attention_operator();
Operator anchored_attention_int8_operator();
Operator ternary_linear_operator();

}  // namespace slmc
