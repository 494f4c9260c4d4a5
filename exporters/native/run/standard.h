// The standard operators that exported graphs use: one maker each, listed in standard.cc.
#pragma once
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "step.h"

namespace slmc::run {

using Maker = std::unique_ptr<Standard> (*)(const std::string& type, const GraphNode& node);

std::unique_ptr<Standard> make_binary(const std::string& type, const GraphNode& node);
std::unique_ptr<Standard> make_unary(const std::string& type, const GraphNode& node);
std::unique_ptr<Standard> make_where(const std::string& type, const GraphNode& node);
std::unique_ptr<Standard> make_cast(const std::string& type, const GraphNode& node);
std::unique_ptr<Standard> make_shape(const std::string& type, const GraphNode& node);
std::unique_ptr<Standard> make_reshaping(const std::string& type, const GraphNode& node);
std::unique_ptr<Standard> make_transpose(const std::string& type, const GraphNode& node);
std::unique_ptr<Standard> make_concat(const std::string& type, const GraphNode& node);
std::unique_ptr<Standard> make_expand(const std::string& type, const GraphNode& node);
std::unique_ptr<Standard> make_slice(const std::string& type, const GraphNode& node);
std::unique_ptr<Standard> make_gather(const std::string& type, const GraphNode& node);
std::unique_ptr<Standard> make_split(const std::string& type, const GraphNode& node);
std::unique_ptr<Standard> make_range(const std::string& type, const GraphNode& node);
std::unique_ptr<Standard> make_reduction(const std::string& type, const GraphNode& node);
std::unique_ptr<Standard> make_softmax(const std::string& type, const GraphNode& node);
std::unique_ptr<Standard> make_layer_norm(const std::string& type, const GraphNode& node);
std::unique_ptr<Standard> make_matmul(const std::string& type, const GraphNode& node);

// An input that must be there, and of that type.
Tensor expect_input(const Step& step, size_t index, int type);

// The entries of an int64 input of rank 0 or 1.
std::vector<int64_t> integers(const Step& step, size_t index);

// An axis from -rank to rank - 1, counted from the front.
size_t positive_axis(int64_t axis, size_t rank);

// The shape that two shapes broadcast to.
Shape broadcast(const Shape& a, const Shape& b);

// Elements from one entry to the next along every axis of `target`, of a tensor that is broadcast to it.
struct Strides {
  int64_t of[kMaxRank] = {};
  Strides(const Shape& shape, const Shape& target);
};

// Calls row(offset_a, offset_b, offset_c, offset_out) for every run along the last axis of `shape`, which has a rank of
// one or more.
template <typename Row>
void for_each_row(const Shape& shape, const Strides& a, const Strides& b, const Strides& c, const Row& row) {
  const int64_t count = shape.count(), length = shape.last();
  if (count == 0) return;
  int64_t at[kMaxRank] = {}, ia = 0, ib = 0, ic = 0;
  for (int64_t out = 0; out < count; out += length) {
    row(ia, ib, ic, out);
    for (size_t axis = shape.rank - 1; axis-- > 0;) {
      ia += a.of[axis], ib += b.of[axis], ic += c.of[axis];
      if (++at[axis] < shape.dims[axis]) break;
      ia -= a.of[axis] * shape.dims[axis], ib -= b.of[axis] * shape.dims[axis], ic -= c.of[axis] * shape.dims[axis];
      at[axis] = 0;
    }
  }
}

// Copies entries in the order of an output of `shape`, `size` bytes each, from x with these strides.
void gather_strided(const char* x, const Shape& shape, const int64_t* strides, size_t size, char* out);

// The same shape with a rank of one at least.
inline Shape at_least_one_axis(Shape shape) {
  if (shape.rank == 0) shape = {1};
  return shape;
}

}  // namespace slmc::run
