// What operators that go through entries one by one share: vectors of a model, and when a second thread pays.
#pragma once
#include "operator.h"

namespace slmc {

// Elements that one core works through in some ten microseconds; waking a second for less does not pay.
constexpr int64_t kWorthElements = 1 << 14;

// A vector of a model: an initializer as a rule, whose shape is then checked once.
class Vector {
 public:
  Vector(const Node& node, size_t index, const char* name) : index_(index), name_(name) {
    constant_ = node.constant(index, &tensor_);
  }
  const float* bind(const Call& call, int64_t channels) const {
    const Tensor tensor = constant_ ? tensor_ : call.input(index_);
    if (tensor.shape.count() != channels)
      throw Refusal(std::string("input '") + name_ + "' is " + tensor.shape.text() + ", expected " +
                    std::to_string(channels) + " entries");
    return tensor.as<float>();
  }

 private:
  size_t index_;
  const char* name_;
  bool constant_;
  Tensor tensor_;
};

}  // namespace slmc
