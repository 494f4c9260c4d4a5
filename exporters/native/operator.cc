// What operators and their hosts share: shapes, and attributes that must be there.
#include "operator.h"

namespace slmc {

Shape::Shape(std::initializer_list<int64_t> values) {
  for (const int64_t value : values) dims[rank++] = value;
}

int64_t Shape::count() const {
  int64_t product = 1;
  for (size_t i = 0; i < rank; ++i) product *= dims[i];
  return product;
}

bool Shape::operator==(const Shape& other) const {
  if (rank != other.rank) return false;
  for (size_t i = 0; i < rank; ++i)
    if (dims[i] != other.dims[i]) return false;
  return true;
}

std::string Shape::text() const {
  std::string out = "[";
  for (size_t i = 0; i < rank; ++i) out += (i ? ", " : "") + std::to_string(dims[i]);
  return out + "]";
}

void expect_shape(const Tensor& tensor, const Shape& expected, const char* what) {
  if (!tensor.data) throw Refusal(std::string("input '") + what + "' is missing; expected " + expected.text());
  if (!(tensor.shape == expected))
    throw Refusal(std::string("input '") + what + "' is " + tensor.shape.text() + ", expected " + expected.text());
}

std::vector<Port> floats(std::initializer_list<const char*> names) {
  std::vector<Port> ports;
  for (const char* name : names) ports.push_back({name, kFloat});
  return ports;
}

void expect_ports(const Operator& op, const std::vector<bool>& there, size_t outputs) {
  if ((!there.empty() && !op.input(there.size() - 1)) || (outputs > 0 && !op.output(outputs - 1)))
    throw Refusal("more inputs or outputs than the operator has");
  for (size_t i = 0; i < op.inputs.size(); ++i)
    if (op.inputs[i].presence != kOptional && (i >= there.size() || !there[i]))
      throw Refusal(std::string("input '") + op.inputs[i].name + "' is missing");
}

int64_t Node::integer(const char* attribute) const {
  int64_t value = 0;
  if (!read_integer(attribute, &value)) throw Refusal(std::string("attribute '") + attribute + "' is missing");
  return value;
}

int64_t Node::integer_or(const char* attribute, int64_t otherwise) const {
  int64_t value = otherwise;
  return read_integer(attribute, &value) ? value : otherwise;
}

float Node::number(const char* attribute) const {
  float value = 0;
  if (!read_number(attribute, &value)) throw Refusal(std::string("attribute '") + attribute + "' is missing");
  return value;
}

float Node::number_or(const char* attribute, float otherwise) const {
  float value = otherwise;
  return read_number(attribute, &value) ? value : otherwise;
}

float Node::zero_or_one(const char* attribute) const {
  const float value = number(attribute);
  if (value != 0 && value != 1) throw Refusal(std::string("attribute ") + attribute + " is neither 0 nor 1");
  return value;
}

std::string Node::text(const char* attribute) const {
  std::string value;
  return read_text(attribute, &value) ? value : std::string();
}

}  // namespace slmc
