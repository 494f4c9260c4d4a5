// The two steps from a description to an operator that ONNX Runtime can call.
#pragma once
#include "operator.h"
#include "ort_abi.h"

namespace slmc {

// The runtime's functions, known from registration on.
const ort::Api& api();
void set_runtime(const ort::Api* known);

// Lives until the process ends: sessions keep pointers to it.
ort::CustomOp* registered(Operator description);

}  // namespace slmc
