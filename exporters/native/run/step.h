// One node while it is made and while it runs, as our runtime's kernels see it.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "onnx_file.h"
#include "operator.h"

namespace slmc::run {

class Network;

// A node of the graph at load. Numbers of values are indices into the network's values, -1 where one is left out.
class GraphNode final : public Node {
 public:
  GraphNode(const Network& network, const NodeRecord& record, const std::vector<int>& inputs)
      : network_(network), record_(record), inputs_(inputs) {}

  bool constant(size_t index, Tensor* out) const override;
  size_t inputs() const { return inputs_.size(); }
  size_t outputs() const { return record_.outputs.size(); }
  std::string text_or(const char* attribute, const char* otherwise) const;
  std::vector<int64_t> integers_or(const char* attribute, std::vector<int64_t> otherwise) const;

 private:
  const AttributeRecord* find(const char* attribute, AttributeRecord::Kind kind) const;
  bool read_integer(const char* attribute, int64_t* out) const override;
  bool read_number(const char* attribute, float* out) const override;
  bool read_text(const char* attribute, std::string* out) const override;

  const Network& network_;
  const NodeRecord& record_;
  const std::vector<int>& inputs_;
};

// One node that runs. Our operators see a Call; standard ones also ask for types and name those of their outputs.
class Step final : public Call {
 public:
  Step(Network* network, int index) : network_(network), index_(index) {}

  Tensor input(size_t index) const override;
  const void* data(size_t index) const override { return input(index).data; }
  void* output(size_t index, const Shape& shape) const override;

  size_t inputs() const;
  int type(size_t index) const;
  void* output(size_t index, const Shape& shape, int type) const;

 private:
  void run_parallel(size_t tasks, void (*run)(void*, size_t), void* data) const override;

  Network* network_;
  int index_;
};

// A standard operator, made once for its node.
class Standard {
 public:
  virtual ~Standard() = default;
  virtual void compute(const Step& step) = 0;
};

// The kernel for a standard operator; null where there is none of that name.
std::unique_ptr<Standard> make_standard(const std::string& type, const GraphNode& node);

}  // namespace slmc::run
