// Standard operators that move entries or count them, and compute nothing.
#include <algorithm>

#include "standard.h"

namespace slmc::run {
namespace {

class ShapeOf final : public Standard {
 public:
  explicit ShapeOf(const GraphNode& node) : start_(node.integer_or("start", 0)), end_(node.integer_or("end", kMaxRank)) {}

  void compute(const Step& step) override {
    const Tensor x = step.input(0);
    if (!x.data) throw Refusal("input 0 is missing");
    const int64_t rank = static_cast<int64_t>(x.shape.rank);
    const auto bound = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + rank : at, 0, rank); };
    const int64_t first = bound(start_), count = std::max<int64_t>(bound(end_) - first, 0);
    std::copy_n(x.shape.dims + first, count, static_cast<int64_t*>(step.output(0, {count}, kInt64)));
  }

 private:
  int64_t start_, end_;
};

// The same entries in another shape.
class Reshaping final : public Standard {
 public:
  Reshaping(const std::string& type, const GraphNode& node)
      : type_(type), keeps_zeros_(node.integer_or("allowzero", 0) != 0), axis_(node.integer_or("axis", 1)) {}

  void compute(const Step& step) override {
    const Tensor x = step.input(0);
    if (!x.data) throw Refusal("input 0 is missing");
    const Shape shape = type_ == "Squeeze"     ? squeezed(step, x.shape)
                        : type_ == "Unsqueeze" ? unsqueezed(step, x.shape)
                        : type_ == "Reshape"   ? reshaped(step, x.shape)
                        : type_ == "Flatten"   ? flattened(x.shape)
                                               : x.shape;
    const int type = step.type(0);
    std::memcpy(step.output(0, shape, type), x.data, bytes_of(x.shape, type));
  }

 private:
  static Shape squeezed(const Step& step, const Shape& x) {
    bool drop[kMaxRank] = {};
    if (step.input(1).data) {
      for (const int64_t axis : integers(step, 1)) drop[positive_axis(axis, x.rank)] = true;
    } else {
      for (size_t i = 0; i < x.rank; ++i) drop[i] = x.dims[i] == 1;
    }
    Shape out;
    for (size_t i = 0; i < x.rank; ++i) {
      if (drop[i] && x.dims[i] != 1) throw Refusal("axis " + std::to_string(i) + " of " + x.text() + " is not 1");
      if (!drop[i]) out.dims[out.rank++] = x.dims[i];
    }
    return out;
  }

  static Shape unsqueezed(const Step& step, const Shape& x) {
    const std::vector<int64_t> axes = integers(step, 1);
    if (axes.size() + x.rank > kMaxRank) throw Refusal("more than 8 dimensions");
    Shape out;
    out.rank = x.rank + axes.size();
    bool added[kMaxRank] = {};
    for (const int64_t axis : axes) {
      const size_t at = positive_axis(axis, out.rank);
      if (added[at]) throw Refusal("axis " + std::to_string(axis) + " twice");
      added[at] = true;
    }
    for (size_t i = 0, from = 0; i < out.rank; ++i) out.dims[i] = added[i] ? 1 : x.dims[from++];
    return out;
  }

  Shape reshaped(const Step& step, const Shape& x) const {
    const std::vector<int64_t> sizes = integers(step, 1);
    if (sizes.size() > kMaxRank) throw Refusal("more than 8 dimensions");
    Shape out;
    int64_t known = 1, open = -1;
    for (const int64_t size : sizes) {
      const size_t i = out.rank++;
      out.dims[i] = size == 0 && !keeps_zeros_ && i < x.rank ? x.dims[i] : size;
      if (size == -1 && open < 0) open = static_cast<int64_t>(i);
      else if (out.dims[i] < 0 || __builtin_mul_overflow(known, out.dims[i], &known)) throw_unequal(x, out);
    }
    if (open >= 0) {
      if (known == 0 || x.count() % known) throw_unequal(x, out);
      out.dims[open] = x.count() / known;
    } else if (known != x.count()) {
      throw_unequal(x, out);
    }
    return out;
  }

  [[noreturn]] static void throw_unequal(const Shape& x, const Shape& out) {
    throw Refusal(x.text() + " does not become " + out.text());
  }

  Shape flattened(const Shape& x) const {
    const size_t axis = axis_ == static_cast<int64_t>(x.rank) ? x.rank : positive_axis(axis_, x.rank);
    Shape out{1, 1};
    for (size_t i = 0; i < x.rank; ++i) out.dims[i >= axis] *= x.dims[i];
    return out;
  }

  std::string type_;
  bool keeps_zeros_;
  int64_t axis_;
};

class Transpose final : public Standard {
 public:
  explicit Transpose(const GraphNode& node) : order_(node.integers_or("perm", {})) {}

  void compute(const Step& step) override {
    const Tensor x = step.input(0);
    if (!x.data) throw Refusal("input 0 is missing");
    const size_t rank = x.shape.rank;
    const Strides own(x.shape, x.shape);
    std::vector<int64_t> reversed;
    const std::vector<int64_t>* order = &order_;
    if (order_.empty()) {
      for (size_t i = rank; i-- > 0;) reversed.push_back(static_cast<int64_t>(i));
      order = &reversed;
    }
    if (order->size() != rank) throw Refusal("perm has another length than " + x.shape.text());
    Shape out;
    int64_t strides[kMaxRank] = {};
    bool seen[kMaxRank] = {};
    for (const int64_t axis : *order) {
      const size_t from = positive_axis(axis, rank);
      if (seen[from]) throw Refusal("perm names an axis twice");
      seen[from] = true;
      strides[out.rank] = own.of[from];
      out.dims[out.rank++] = x.shape.dims[from];
    }
    const int type = step.type(0);
    gather_strided(x.as<char>(), out, strides, element_size(type), static_cast<char*>(step.output(0, out, type)));
  }

 private:
  std::vector<int64_t> order_;
};

class Expand final : public Standard {
 public:
  void compute(const Step& step) override {
    const Tensor x = step.input(0);
    if (!x.data) throw Refusal("input 0 is missing");
    const std::vector<int64_t> sizes = integers(step, 1);
    if (sizes.size() > kMaxRank) throw Refusal("more than 8 dimensions");
    Shape wanted;
    for (const int64_t size : sizes) wanted.dims[wanted.rank++] = size;
    const Shape out = broadcast(x.shape, wanted);
    const Strides strides(x.shape, out);
    const int type = step.type(0);
    auto* made = static_cast<char*>(step.output(0, out, type));
    gather_strided(x.as<char>(), out, strides.of, element_size(type), made);
  }
};

class Concat final : public Standard {
 public:
  explicit Concat(const GraphNode& node) : axis_(node.integer("axis")) {}

  void compute(const Step& step) override {
    Shape out = step.input(0).shape;
    const int type = step.type(0);
    const size_t axis = positive_axis(axis_, out.rank), size = element_size(type);
    for (size_t i = 0; i < step.inputs(); ++i) {
      Tensor x = step.input(i);
      if (!x.data || step.type(i) != type || x.shape.rank != out.rank) throw Refusal("its inputs do not fit together");
      if (i > 0) out.dims[axis] += x.shape.dims[axis];
      x.shape.dims[axis] = out.dims[axis];
      if (!(x.shape == out)) throw Refusal("its inputs do not fit together");
    }
    auto* made = static_cast<char*>(step.output(0, out, type));
    int64_t outer = 1, inner = static_cast<int64_t>(size);
    for (size_t i = 0; i < out.rank; ++i) (i < axis ? outer : inner) *= i == axis ? 1 : out.dims[i];
    const int64_t row = out.dims[axis] * inner;
    int64_t at = 0;
    for (size_t i = 0; i < step.inputs(); ++i) {
      const Tensor x = step.input(i);
      const int64_t part = x.shape.dims[axis] * inner;
      for (int64_t o = 0; o < outer; ++o) std::memcpy(made + o * row + at, x.as<char>() + o * part, part);
      at += part;
    }
  }

 private:
  int64_t axis_;
};

}  // namespace

std::unique_ptr<Standard> make_shape(const std::string&, const GraphNode& node) {
  return std::make_unique<ShapeOf>(node);
}
std::unique_ptr<Standard> make_reshaping(const std::string& type, const GraphNode& node) {
  return std::make_unique<Reshaping>(type, node);
}
std::unique_ptr<Standard> make_transpose(const std::string&, const GraphNode& node) {
  return std::make_unique<Transpose>(node);
}
std::unique_ptr<Standard> make_concat(const std::string&, const GraphNode& node) {
  return std::make_unique<Concat>(node);
}
std::unique_ptr<Standard> make_expand(const std::string&, const GraphNode&) { return std::make_unique<Expand>(); }

}  // namespace slmc::run
