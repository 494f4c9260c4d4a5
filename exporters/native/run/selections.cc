// Standard operators that choose entries.
#include <algorithm>

#include "standard.h"

namespace slmc::run {
namespace {

constexpr int64_t kMostRange = int64_t{1} << 24;

class Slice final : public Standard {
 public:
  void compute(const Step& step) override {
    const Tensor x = step.input(0);
    if (!x.data) throw Refusal("input 0 is missing");
    const std::vector<int64_t> starts = integers(step, 1), ends = integers(step, 2);
    std::vector<int64_t> axes, steps(starts.size(), 1);
    if (step.input(3).data) axes = integers(step, 3);
    else for (size_t i = 0; i < starts.size(); ++i) axes.push_back(static_cast<int64_t>(i));
    if (step.input(4).data) steps = integers(step, 4);
    if (ends.size() != starts.size() || axes.size() != starts.size() || steps.size() != starts.size())
      throw Refusal("its lists have different lengths");
    Strides strides(x.shape, x.shape);
    Shape out = x.shape;
    int64_t begin = 0;
    for (size_t i = 0; i < starts.size(); ++i) {
      const size_t axis = positive_axis(axes[i], out.rank);
      const int64_t size = x.shape.dims[axis];
      if (steps[i] < 1) throw Refusal("slmc-run cuts forwards only");
      const auto bound = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size); };
      const int64_t first = bound(std::max(starts[i], -size)), last = bound(std::max(ends[i], -size));
      out.dims[axis] = first < last ? (last - first - 1) / steps[i] + 1 : 0;
      if (out.dims[axis]) begin += first * strides.of[axis];
      if (steps[i] < size) strides.of[axis] *= steps[i];
    }
    const int type = step.type(0);
    const size_t element = element_size(type);
    gather_strided(x.as<char>() + begin * static_cast<int64_t>(element), out, strides.of, element,
                   static_cast<char*>(step.output(0, out, type)));
  }
};

class Gather final : public Standard {
 public:
  explicit Gather(const GraphNode& node) : axis_(node.integer_or("axis", 0)) {}

  void compute(const Step& step) override {
    const Tensor x = step.input(0), indices = expect_input(step, 1, kInt64);
    if (!x.data) throw Refusal("input 0 is missing");
    const size_t axis = positive_axis(axis_, x.shape.rank);
    Shape out;
    if (x.shape.rank - 1 + indices.shape.rank > kMaxRank) throw Refusal("more than 8 dimensions");
    int64_t outer = 1, inner = 1;
    for (size_t i = 0; i < axis; ++i) outer *= out.dims[out.rank++] = x.shape.dims[i];
    for (size_t i = 0; i < indices.shape.rank; ++i) out.dims[out.rank++] = indices.shape.dims[i];
    for (size_t i = axis + 1; i < x.shape.rank; ++i) inner *= out.dims[out.rank++] = x.shape.dims[i];
    const int type = step.type(0);
    const int64_t bytes = inner * static_cast<int64_t>(element_size(type)), rows = x.shape.dims[axis];
    const int64_t count = indices.shape.count();
    auto* made = static_cast<char*>(step.output(0, out, type));
    for (int64_t o = 0; o < outer; ++o) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t index = indices.as<int64_t>()[i], row = index < 0 ? index + rows : index;
        if (row < 0 || row >= rows)
          throw Refusal("index " + std::to_string(index) + " is not in a table of " + std::to_string(rows) + " rows");
        std::memcpy(made + (o * count + i) * bytes, x.as<char>() + (o * rows + row) * bytes, bytes);
      }
    }
  }

 private:
  int64_t axis_;
};

// Along an axis: pieces of the sizes that the second input names, or equal ones, of which the last may be shorter.
class Split final : public Standard {
 public:
  explicit Split(const GraphNode& node) : axis_(node.integer_or("axis", 0)), pieces_(node.outputs()) {}

  void compute(const Step& step) override {
    const Tensor x = step.input(0);
    if (!x.data) throw Refusal("input 0 is missing");
    const size_t axis = positive_axis(axis_, x.shape.rank);
    const int64_t rows = x.shape.dims[axis], count = static_cast<int64_t>(pieces_);
    std::vector<int64_t> sizes;
    if (step.input(1).data) sizes = integers(step, 1);
    else
      for (int64_t each = (rows + count - 1) / count, i = 0; i < count; ++i)
        sizes.push_back(std::clamp<int64_t>(rows - i * each, 0, each));
    int64_t left = rows;
    for (const int64_t size : sizes) left = size < 0 || size > left ? -1 : left - size;
    if (sizes.size() != pieces_ || left != 0) throw Refusal("its pieces are not those of " + x.shape.text());
    const Strides strides(x.shape, x.shape);
    const int type = step.type(0);
    const size_t element = element_size(type);
    Shape out = x.shape;
    for (size_t i = 0, first = 0; i < pieces_; first += static_cast<size_t>(sizes[i++])) {
      out.dims[axis] = sizes[i];
      const char* begin = x.as<char>() + first * static_cast<size_t>(strides.of[axis]) * element;
      gather_strided(begin, out, strides.of, element, static_cast<char*>(step.output(i, out, type)));
    }
  }

 private:
  int64_t axis_;
  size_t pieces_;
};

class Range final : public Standard {
 public:
  void compute(const Step& step) override {
    int64_t bounds[3];
    for (size_t i = 0; i < 3; ++i) {
      const Tensor x = expect_input(step, i, kInt64);
      if (x.shape.count() != 1) throw Refusal("its bounds are single numbers");
      bounds[i] = x.as<int64_t>()[0];
    }
    const int64_t first = bounds[0], step_size = bounds[2];
    int64_t distance = 0;
    if (step_size < 1 || __builtin_sub_overflow(bounds[1], first, &distance)) throw Refusal("its bounds make no range");
    const int64_t count = distance > 0 ? (distance - 1) / step_size + 1 : 0;
    if (count > kMostRange) throw Refusal("a range of " + std::to_string(count) + " numbers");
    auto* made = static_cast<int64_t*>(step.output(0, {count}, kInt64));
    for (int64_t i = 0; i < count; ++i) made[i] = first + i * step_size;
  }
};

}  // namespace

std::unique_ptr<Standard> make_slice(const std::string&, const GraphNode&) { return std::make_unique<Slice>(); }
std::unique_ptr<Standard> make_gather(const std::string&, const GraphNode& node) {
  return std::make_unique<Gather>(node);
}
std::unique_ptr<Standard> make_split(const std::string&, const GraphNode& node) { return std::make_unique<Split>(node); }
std::unique_ptr<Standard> make_range(const std::string&, const GraphNode&) { return std::make_unique<Range>(); }

}  // namespace slmc::run
