// Checks of stored weights: every port has exactly the shape that K, N, bits and group give it.
#include "qmatrix_ports.h"

namespace slmc {
namespace {

constexpr const char* kNames[] = {"codes", "scales", "high"};
constexpr int64_t kLargest = int64_t{1} << 31;

void expect(bool holds, const std::string& otherwise) {
  if (!holds) throw Refusal(otherwise);
}

}  // namespace

QMatrixPorts::QMatrixPorts(const Node& node, Table table) : table_(table) {
  QMatrix& m = matrix_;
  m.K = node.integer("K");
  m.N = node.integer("N");
  m.group = node.integer("group");
  const int64_t bits = node.integer("bits");
  expect(m.K > 0 && m.K < kLargest, "attribute K = " + std::to_string(m.K) + " is not in 1 .. 2^31 - 1");
  expect(m.N > 0 && m.N < kLargest, "attribute N = " + std::to_string(m.N) + " is not in 1 .. 2^31 - 1");
  expect(table == kEvenSteps || bits == 4 || (table == kGivenSteps && bits == 3),
         "attribute bits = " + std::to_string(bits) + "; a table is for 3 and 4, four-bit floats are for 4");
  expect(bits >= 1 && bits <= 8 && bits != 7, "attribute bits = " + std::to_string(bits) + "; known are 1 .. 6 and 8");
  expect(m.group > 0 && m.group % 8 == 0 && m.group < kLargest,
         "attribute group = " + std::to_string(m.group) + " is not a positive multiple of 8");
  const int64_t tile = node.integer_or("tile", 0);
  expect(tile == 0 || tile == kTile, "attribute tile = " + std::to_string(tile) + "; known are 0 and 16");
  expect(tile == 0 || fills_words(m.group, static_cast<int>(bits)),
         "attribute tile = 16 asks for groups of a multiple of 32, or of 16 where bits are 2, 4 or 8, not of " +
             std::to_string(m.group));
  if (table == kFloat4) m.steps = kFloat4Steps;
  if (tile) m.tiled = m.N / kTile * kTile;
  m.bits = static_cast<int>(bits);
  m.groups = (m.K + m.group - 1) / m.group;
  for (const Port port : {kCodes, kScales, kHigh, kLast}) {
    Tensor tensor;
    constant_[port] = node.constant(1 + port, &tensor);
    if (constant_[port]) set(&m, port, tensor);
  }
}

Shape QMatrixPorts::expected(Port port) const {
  const QMatrix& m = matrix_;
  if (port == kCodes) return {m.N, m.groups, m.group * low_bits(m.bits) / 8};
  if (port == kHigh) return {m.N, m.groups, m.group * high_bits(m.bits) / 8};
  if (port == kLast && table_ == kGivenSteps) return {int64_t{1} << m.bits};
  return {m.N, m.groups};
}

void QMatrixPorts::set(QMatrix* m, Port port, const Tensor& tensor) const {
  if (port == kHigh && high_bits(m->bits) == 0) {
    if (tensor.data) throw Refusal("input 'high' is for 3, 5 and 6 bits, not for " + std::to_string(m->bits));
    return;
  }
  if (port == kLast && table_ != kGivenSteps && !tensor.data) return;
  expect(port != kLast || table_ != kFloat4, "input 'patterns' is not for this matrix");
  expect_shape(tensor, expected(port), port == kLast ? table_ ? "steps" : "zeros" : kNames[port]);
  if (port == kCodes) m->codes = tensor.as<uint8_t>();
  if (port == kScales) m->scales = tensor.as<uint16_t>();
  if (port == kHigh) m->high = tensor.as<uint8_t>();
  if (port == kLast && table_) m->steps = tensor.as<int8_t>();
  if (port == kLast && !table_) m->zeros = tensor.as<uint8_t>();
}

QMatrix QMatrixPorts::bind(const Call& call) const {
  QMatrix m = matrix_;
  for (const Port port : {kCodes, kScales, kHigh, kLast})
    if (!constant_[port]) set(&m, port, call.input(1 + port));
  return m;
}

std::vector<Port> qmatrix_ports(Port first, const Port& last) {
  return {first,
          {"codes", kUint8},
          {"scales", kFloat16},
          {"high", kUint8, kOptional},
          last};
}

}  // namespace slmc
