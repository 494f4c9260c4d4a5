#include "standard.h"

namespace slmc::run {
namespace {

struct Row {
  const char* type;
  Maker make;
};

constexpr Row kStandard[] = {
    {"Add", make_binary}, {"Sub", make_binary}, {"Mul", make_binary}, {"Div", make_binary}, {"Pow", make_binary},
    {"Greater", make_binary}, {"GreaterOrEqual", make_binary}, {"Less", make_binary}, {"LessOrEqual", make_binary},
    {"Equal", make_binary}, {"Reciprocal", make_unary}, {"Sqrt", make_unary}, {"Sigmoid", make_unary},
    {"Tanh", make_unary}, {"Relu", make_unary}, {"Gelu", make_unary}, {"Neg", make_unary}, {"Erf", make_unary},
    {"Exp", make_unary}, {"Log", make_unary}, {"Cos", make_unary}, {"Sin", make_unary},
    {"Abs", make_unary}, {"Round", make_unary}, {"Where", make_where},
    {"Cast", make_cast}, {"Shape", make_shape}, {"Squeeze", make_reshaping}, {"Unsqueeze", make_reshaping},
    {"Reshape", make_reshaping}, {"Flatten", make_reshaping}, {"Identity", make_reshaping},
    {"Transpose", make_transpose}, {"Concat", make_concat},
    {"Expand", make_expand}, {"Slice", make_slice}, {"Gather", make_gather}, {"Split", make_split},
    {"Range", make_range}, {"ReduceMean", make_reduction}, {"ReduceSum", make_reduction},
    {"ReduceMax", make_reduction}, {"Softmax", make_softmax},
    {"LayerNormalization", make_layer_norm}, {"MatMul", make_matmul},
};

}  // namespace

std::unique_ptr<Standard> make_standard(const std::string& type, const GraphNode& node) {
  for (const Row& row : kStandard)
    if (type == row.type) return row.make(type, node);
  return nullptr;
}

Tensor expect_input(const Step& step, size_t index, int type) {
  const Tensor tensor = step.input(index);
  if (!tensor.data) throw Refusal("input " + std::to_string(index) + " is missing");
  if (step.type(index) != type)
    throw Refusal("input " + std::to_string(index) + " has element type " + std::to_string(step.type(index)) +
                  ", slmc-run reads " + std::to_string(type) + " here");
  return tensor;
}

std::vector<int64_t> integers(const Step& step, size_t index) {
  const Tensor tensor = expect_input(step, index, kInt64);
  if (tensor.shape.rank > 1 || tensor.shape.count() > 64) throw Refusal("input " + std::to_string(index) + " is no list");
  return {tensor.as<int64_t>(), tensor.as<int64_t>() + tensor.shape.count()};
}

size_t positive_axis(int64_t axis, size_t rank) {
  const int64_t count = static_cast<int64_t>(rank), positive = axis < 0 ? axis + count : axis;
  if (positive < 0 || positive >= count)
    throw Refusal("axis " + std::to_string(axis) + " of a tensor of " + std::to_string(rank) + " dimensions");
  return static_cast<size_t>(positive);
}

Shape broadcast(const Shape& a, const Shape& b) {
  Shape out;
  out.rank = a.rank > b.rank ? a.rank : b.rank;
  for (size_t i = 0; i < out.rank; ++i) {
    const int64_t of_a = i + a.rank < out.rank ? 1 : a.dims[i + a.rank - out.rank];
    const int64_t of_b = i + b.rank < out.rank ? 1 : b.dims[i + b.rank - out.rank];
    if (of_a != of_b && of_a != 1 && of_b != 1) throw Refusal(a.text() + " and " + b.text() + " do not broadcast");
    out.dims[i] = of_a == 1 ? of_b : of_a;
  }
  return out;
}

Strides::Strides(const Shape& shape, const Shape& target) {
  int64_t step = 1;
  for (size_t i = 0; i < shape.rank; ++i) {
    const size_t own = shape.rank - 1 - i, axis = target.rank - 1 - i;
    of[axis] = shape.dims[own] == 1 ? 0 : step;
    step *= shape.dims[own];
  }
}

void gather_strided(const char* x, const Shape& shape, const int64_t* strides, size_t size, char* out) {
  const int64_t count = shape.count();
  int64_t at[kMaxRank] = {}, from = 0;
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(out + i * size, x + from * static_cast<int64_t>(size), size);
    for (size_t axis = shape.rank; axis-- > 0;) {
      from += strides[axis];
      if (++at[axis] < shape.dims[axis]) break;
      from -= strides[axis] * shape.dims[axis];
      at[axis] = 0;
    }
  }
}

}  // namespace slmc::run
