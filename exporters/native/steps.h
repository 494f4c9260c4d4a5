// What a Fused node does, read from its text (exporters/ops/steps.py).
#pragma once
#include <map>
#include <string>
#include <vector>

#include "operator.h"

namespace slmc {

struct StepRecord {
  std::string type;
  std::vector<int> inputs;  // numbers of values, -1 where one is left out
  int made = 0;             // the number of its first output
  const Operator* op = nullptr;
  std::map<std::string, std::string> attributes;
};

// Values are numbered: the node's inputs first, then what steps make.
struct StepsRecord {
  int inputs = 0, values = 0;
  std::vector<StepRecord> steps;
  std::vector<int> outputs;
};

// Raises Refusal for anything that is not sound, or has a step that we do not know.
StepsRecord read_steps(const std::string& text);

// A number as C writes hexadecimal ones; whether it is one.
bool read_hexadecimal(const std::string& text, float* out);

// ONNX's own operators that may be steps.
const std::vector<Operator>& standard_steps();

}  // namespace slmc
