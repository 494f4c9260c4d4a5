#include "onnx_file.h"

#include <algorithm>

#include "wire.h"

namespace slmc::run {
namespace {

constexpr uint64_t kMostTensorBytes = std::min<uint64_t>(uint64_t{1} << 40, SIZE_MAX / 2);
constexpr size_t kMostNodes = 1 << 20;
constexpr int kInt32 = 6, kDouble = 11;

// Where a tensor's bytes are in the file of external data.
struct Outside {
  std::string file;
  uint64_t offset = 0, length = 0;
  bool has_length = false;
};

uint64_t decimal(const std::string& text, const std::string& tensor) {
  uint64_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9' || value > (uint64_t{1} << 56))
      throw Refusal("model.onnx: tensor '" + tensor + "' has an offset or length that is no number");
    value = value * 10 + static_cast<uint64_t>(c - '0');
  }
  return value;
}

void read_entry(Span span, Outside* outside, const std::string& tensor) {
  std::string key, value;
  for (Wire wire(span); wire.field();) {
    if (wire.number == 1) key = wire.text();
    else if (wire.number == 2) value = wire.text();
    else wire.skip();
  }
  if (key == "location") outside->file = value;
  if (key == "offset") outside->offset = decimal(value, tensor);
  if (key == "length") {
    outside->length = decimal(value, tensor);
    outside->has_length = true;
  }
}

template <typename T>
void append(std::vector<uint8_t>* bytes, T value) {
  const auto* first = reinterpret_cast<const uint8_t*>(&value);
  bytes->insert(bytes->end(), first, first + sizeof value);
}

// One number of int32_data or int64_data, in the tensor's own type.
void append_integer(TensorRecord* tensor, int64_t value) {
  if (tensor->type == kInt64) append(&tensor->owned, value);
  else if (tensor->type == kInt32) append(&tensor->owned, static_cast<int32_t>(value));
  else if (tensor->type == kFloat16) append(&tensor->owned, static_cast<uint16_t>(value));
  else append(&tensor->owned, static_cast<uint8_t>(value));
}

void append_floats(Wire* wire, std::vector<uint8_t>* owned) {
  if (wire->kind == Wire::kFixed32) return append(owned, wire->number32());
  const Span packed = wire->bytes();
  owned->insert(owned->end(), packed.data, packed.data + packed.size);
}

void add_size(Shape* shape, int64_t size) {
  if (shape->rank == kMaxRank) throw Refusal("model.onnx: a tensor of more than 8 dimensions");
  shape->dims[shape->rank++] = size;
}

// Points `bytes` at the data, and checks that it is all there and can be read where it lies.
void place(TensorRecord* tensor, const Outside& outside, bool external, Span data, const std::string& data_name) {
  const size_t size = bytes_of(tensor->shape, tensor->type);
  const std::string what = "model.onnx: tensor '" + tensor->name + "' ";
  if (external) {
    if (outside.file != data_name) throw Refusal(what + "lies in '" + outside.file + "', expected " + data_name);
    if (outside.has_length && outside.length != size)
      throw Refusal(what + "has " + std::to_string(outside.length) + " bytes, its shape asks for " + std::to_string(size));
    if (outside.offset > data.size || size > data.size - outside.offset)
      throw Refusal(what + "reaches beyond the end of " + data_name + "; copy the artifact again");
    if (outside.offset % element_size(tensor->type))
      throw Refusal(what + "begins at byte " + std::to_string(outside.offset) + ", not at a multiple of its elements' size");
    tensor->bytes = {data.data + outside.offset, size};
    return;
  }
  if (tensor->owned.empty() && tensor->bytes.size)
    tensor->owned.assign(tensor->bytes.data, tensor->bytes.data + tensor->bytes.size);
  if (tensor->owned.size() != size)
    throw Refusal(what + "has " + std::to_string(tensor->owned.size()) + " bytes, its shape asks for " +
                  std::to_string(size));
  tensor->bytes = {tensor->owned.data(), size};
}

TensorRecord read_tensor(Span span, Span data, const std::string& data_name) {
  TensorRecord tensor;
  Outside outside;
  bool external = false;
  std::vector<Span> entries;
  std::vector<int64_t> numbers;
  for (Wire wire(span); wire.field();) {
    switch (wire.number) {
      case 1: wire.integers([&](int64_t size) { add_size(&tensor.shape, size); }); break;
      case 2: tensor.type = static_cast<int>(std::clamp<int64_t>(wire.integer(), 0, 1000)); break;
      case 4: append_floats(&wire, &tensor.owned); break;
      case 5:
      case 7: wire.integers([&](int64_t value) { numbers.push_back(value); }); break;
      case 8: tensor.name = wire.text(); break;
      case 9: tensor.bytes = wire.bytes(); break;
      case 13: entries.push_back(wire.bytes()); break;
      case 14: external = wire.integer() == 1; break;
      default: wire.skip();
    }
  }
  if (element_size(tensor.type) == 0)
    throw Refusal("model.onnx: tensor '" + tensor.name + "' has element type " + std::to_string(tensor.type) +
                  ", which slmc-run does not read");
  for (const int64_t value : numbers) append_integer(&tensor, value);
  for (const Span entry : entries) read_entry(entry, &outside, tensor.name);
  place(&tensor, outside, external, data, data_name);
  return tensor;
}

AttributeRecord read_attribute(Span span, std::string* name) {
  AttributeRecord attribute;
  int64_t type = 0;
  for (Wire wire(span); wire.field();) {
    switch (wire.number) {
      case 1: *name = wire.text(); break;
      case 2: attribute.number = wire.number32(); break;
      case 3: attribute.integer = wire.integer(); break;
      case 4: attribute.text = wire.text(); break;
      case 8: wire.integers([&](int64_t value) { attribute.integers.push_back(value); }); break;
      case 20: type = wire.integer(); break;
      default: wire.skip();
    }
  }
  const bool known = (type >= 1 && type <= 4) || type == 7;
  attribute.kind = known ? static_cast<AttributeRecord::Kind>(type) : AttributeRecord::kOther;
  return attribute;
}

NodeRecord read_node(Span span) {
  NodeRecord node;
  for (Wire wire(span); wire.field();) {
    switch (wire.number) {
      case 1: node.inputs.push_back(wire.text()); break;
      case 2: node.outputs.push_back(wire.text()); break;
      case 4: node.type = wire.text(); break;
      case 5: {
        std::string name;
        AttributeRecord attribute = read_attribute(wire.bytes(), &name);
        node.attributes[name] = std::move(attribute);
        break;
      }
      case 7: node.domain = wire.text(); break;
      default: wire.skip();
    }
  }
  if (node.domain == "ai.onnx") node.domain.clear();
  return node;
}

int64_t read_dimension(Span span) {
  int64_t size = -1;
  for (Wire wire(span); wire.field();) {
    if (wire.number == 1) size = wire.integer();
    else wire.skip();
  }
  return size;
}

PortRecord read_port(Span span) {
  PortRecord port;
  const auto shape = [&](Span of) {
    for (Wire wire(of); wire.field();) {
      if (wire.number == 1) add_size(&port.shape, read_dimension(wire.bytes()));
      else wire.skip();
    }
  };
  const auto tensor_type = [&](Span of) {
    for (Wire wire(of); wire.field();) {
      if (wire.number == 1) port.type = static_cast<int>(std::clamp<int64_t>(wire.integer(), 0, 1000));
      else if (wire.number == 2) shape(wire.bytes());
      else wire.skip();
    }
  };
  for (Wire wire(span); wire.field();) {
    if (wire.number == 1) {
      port.name = wire.text();
    } else if (wire.number == 2) {
      for (Wire type(wire.bytes()); type.field();) {
        if (type.number == 1) tensor_type(type.bytes());
        else type.skip();
      }
    } else {
      wire.skip();
    }
  }
  return port;
}

void read_graph(Span span, Span data, const std::string& data_name, ModelRecord* model) {
  for (Wire wire(span); wire.field();) {
    switch (wire.number) {
      case 1: model->nodes.push_back(read_node(wire.bytes())); break;
      case 5: model->tensors.push_back(read_tensor(wire.bytes(), data, data_name)); break;
      case 11: model->inputs.push_back(read_port(wire.bytes())); break;
      case 12: model->outputs.push_back(read_port(wire.bytes())); break;
      default: wire.skip();
    }
    if (model->nodes.size() > kMostNodes) throw Refusal("model.onnx: more than a million nodes");
  }
}

}  // namespace

std::string NodeRecord::label() const {
  const std::string operator_name = domain.empty() ? type : domain + "." + type;
  return operator_name + (outputs.empty() ? "" : " '" + outputs[0] + "'");
}

size_t element_size(int type) {
  switch (type) {
    case kUint8:
    case kInt8:
    case kBool: return 1;
    case kFloat16: return 2;
    case kFloat:
    case kInt32: return 4;
    case kInt64:
    case kDouble: return 8;
    default: return 0;
  }
}

size_t bytes_of(const Shape& shape, int type) {
  uint64_t bytes = element_size(type);
  bool empty = false;
  for (size_t i = 0; i < shape.rank; ++i) {
    if (shape.dims[i] < 0) throw Refusal("a tensor of shape " + shape.text());
    if (shape.dims[i] == 0) empty = true;
    else if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(shape.dims[i]), &bytes) || bytes > kMostTensorBytes)
      throw Refusal("a tensor of shape " + shape.text() + " is larger than any that fits");
  }
  return empty ? 0 : static_cast<size_t>(bytes);
}

ModelRecord read_model(Span model, Span data, const std::string& data_name) {
  ModelRecord record;
  for (Wire wire(model); wire.field();) {
    if (wire.number == 7) read_graph(wire.bytes(), data, data_name, &record);
    else wire.skip();
  }
  return record;
}

}  // namespace slmc::run
