// The two steps from a description to an operator that ONNX Runtime can call.
#pragma once
#include "operator.h"
#include "ort_abi.h"

namespace slmc {

// The runtime's functions, known from registration on.
const ort::Api& api();
void set_runtime(const ort::Api* known);

// The operator under a name of nodes; lives until the process ends, because sessions keep pointers to it.
ort::CustomOp* registered(Operator description, std::string name);

}  // namespace slmc
