// The four weight inputs that QLinear and QEmbedding share, and TableLinear and TableEmbedding, which have a table of
// steps instead of zeros: bound once where they are initializers, else per call.
#pragma once
#include "matrix.h"
#include "operator.h"

namespace slmc {

// What codes stand for: themselves, or a number in a table that is input 4, or four-bit floats.
enum Table { kEvenSteps, kGivenSteps, kFloat4 };

class QMatrixPorts {
 public:
  // Inputs 1 .. 4 of the node: codes, scales, high, zeros or steps; attributes K, N, bits, group.
  QMatrixPorts(const Node& node, Table table);
  QMatrix bind(const Call& call) const;

 private:
  enum Port { kCodes, kScales, kHigh, kLast, kPorts };
  Shape expected(Port port) const;
  void set(QMatrix* m, Port port, const Tensor& tensor) const;

  QMatrix matrix_;
  Table table_;
  bool constant_[kPorts] = {};
};

// `first`, the codes, scales and high bits of a matrix, and what else its rows may have.
constexpr Port kZeroPort{"zeros", kUint8, kOptional}, kStepPort{"steps", kInt8};
std::vector<Port> qmatrix_ports(Port first, const Port& last = kZeroPort);

}  // namespace slmc
