// model.onnx as plain records: as much of ONNX's protobuf as graphs of ours use. Function bodies are passed over.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "file.h"
#include "operator.h"

namespace slmc::run {

struct TensorRecord {
  std::string name;
  int type = 0;
  Shape shape;
  Span bytes;                  // raw data, or what the external file holds
  std::vector<uint8_t> owned;  // data that was not raw, or was not aligned
};

struct AttributeRecord {
  enum Kind { kNone, kNumber = 1, kInteger = 2, kText = 3, kTensor = 4, kIntegers = 7, kOther = 99 } kind = kNone;
  int64_t integer = 0;
  float number = 0;
  std::string text;
  std::vector<int64_t> integers;
};

struct NodeRecord {
  std::string type, domain;
  std::vector<std::string> inputs, outputs;  // empty where one is left out
  std::map<std::string, AttributeRecord> attributes;

  std::string label() const;  // what errors call it
};

// A graph's input or output; sizes that are not known are -1.
struct PortRecord {
  std::string name;
  int type = 0;
  Shape shape;
};

struct ModelRecord {
  std::vector<NodeRecord> nodes;
  std::vector<TensorRecord> tensors;
  std::vector<PortRecord> inputs, outputs;
};

// Raises Refusal for anything that is damaged or that we do not read; tensors point into both files, which must outlive
// the record. `data` is the file of external tensors, whose name must be `data_name`.
ModelRecord read_model(Span model, Span data, const std::string& data_name);

// Bytes of one element; 0 for types that we do not know.
size_t element_size(int type);

// Bytes of a tensor. Raises Refusal for negative sizes and for more than any model of ours could need.
size_t bytes_of(const Shape& shape, int type);

}  // namespace slmc::run
