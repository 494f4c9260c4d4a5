// The four weight inputs that QLinear and QEmbedding share: bound once where they are initializers, else per call.
#pragma once
#include "matrix.h"
#include "operator.h"

namespace slmc {

class QMatrixPorts {
 public:
  // Inputs 1 .. 4 of the node: codes, scales, high, zeros; attributes K, N, bits, group.
  explicit QMatrixPorts(const Node& node);
  QMatrix bind(const Call& call) const;

 private:
  enum Port { kCodes, kScales, kHigh, kZeros, kPorts };
  Shape expected(Port port) const;
  void set(QMatrix* m, Port port, const Tensor& tensor) const;

  QMatrix matrix_;
  bool constant_[kPorts] = {};
};

// `first`, the codes, scales and high bits of a matrix, and what else its rows may have.
std::vector<Port> qmatrix_ports(Port first, const char* last = "zeros");

}  // namespace slmc
