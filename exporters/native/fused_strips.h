// Steps of a Fused node that go through rows one by one, done strip by strip: what one makes for the next stays in the
// nearest cache of the processor instead of going through memory.
#pragma once
#include <algorithm>

#include "fused_parts.h"
#include "products.h"
#include "vectors.h"

namespace slmc {
namespace {

constexpr int64_t kStripEntries = 2048;  // of each of the five values or so of a strip

// Some rows of all steps.
struct Strip {
  int64_t first, rows;
  float* memory;  // kept values, one behind the other
};

// Parts `first` .. `first + count - 1`, and what they are in one call.
class Strips {
 public:
  Strips(const Part* first, size_t count, const Fixed& fixed, const Values& values)
      : parts_(first), count_(count), fixed_(fixed), values_(values) {
    if (count < 2) return;
    for (const int value : first->inputs)
      if (tensor(value).shape.count() > whole_.count() || whole_.rank == 0) whole_ = tensor(value).shape;
    worthwhile_ = whole_.rank > 1 && whole_.count() > kStripEntries && all_fit();
  }

  bool worthwhile() const { return worthwhile_; }
  const Shape& whole() const { return whole_; }

  // What is not local must have its memory by now.
  void run(const Call& call) const {
    const int64_t channels = whole_.last(), rows = whole_.count() / channels;
    const int64_t each = std::max<int64_t>(1, kStripEntries / channels), task_rows = 1 + kWorthElements / channels;
    call.parallel(static_cast<size_t>((rows + task_rows - 1) / task_rows), [&](size_t task) {
      const int64_t first = static_cast<int64_t>(task) * task_rows, last = std::min(rows, first + task_rows);
      float* memory = call_arena().take<float>(static_cast<int64_t>(count_) * each * channels);
      for (int64_t row = first; row < last; row += each) run_strip({row, std::min(each, last - row), memory});
    });
  }

 private:
  class StripCall final : public Call {
   public:
    StripCall(const Strips& strips, const Part& part, const Strip& strip) : strips_(strips), part_(part), strip_(strip) {}
    Tensor input(size_t index) const override { return strips_.piece(part_.inputs[index], strip_); }
    const void* data(size_t index) const override { return input(index).data; }
    void* output(size_t, const Shape&) const override { return const_cast<void*>(strips_.piece(part_.made, strip_).data); }

   private:
    void run_parallel(size_t tasks, void (*run)(void*, size_t), void* data) const override {
      for (size_t task = 0; task < tasks; ++task) run(data, task);
    }
    const Strips& strips_;
    const Part& part_;
    const Strip& strip_;
  };

  void run_strip(const Strip& strip) const {
    for (size_t i = 0; i < count_; ++i) parts_[i].kernel->compute(StripCall(*this, parts_[i], strip));
  }

  bool made_here(int value) const { return value >= parts_->made && value < parts_->made + static_cast<int>(count_); }

  const Tensor& tensor(int value) const {
    const Tensor& constant = fixed_.constants[value];
    return constant.data ? constant : values_.tensors[value];
  }

  // Whether each step has an input of the whole's shape, and beside it vectors of its channels and numbers at most: what
  // no step refuses.
  bool all_fit() const {
    for (size_t i = 0; i < count_; ++i) {
      bool any = false;
      for (const int value : parts_[i].inputs) {
        const Shape& shape = made_here(value) ? whole_ : tensor(value).shape;
        const bool vector = shape.count() == whole_.last() && shape.last() == whole_.last();
        if (shape == whole_) any = true;
        else if (!(vector || shape.count() == 1) || shape.rank > whole_.rank) return false;
      }
      if (!any) return false;
    }
    return true;
  }

  // The rows of a value, or all of a vector.
  Tensor piece(int value, const Strip& strip) const {
    const size_t maker = static_cast<size_t>(value - parts_->made);
    const bool local = made_here(value) && parts_[maker].local;
    Tensor found;
    if (!local) found = tensor(value);
    if (!local && !(found.shape == whole_)) return found;
    const int64_t channels = whole_.last(), kept = std::max<int64_t>(1, kStripEntries / channels) * channels;
    found.data = local ? strip.memory + static_cast<int64_t>(maker) * kept : found.as<float>() + strip.first * channels;
    found.type = kFloat;
    found.shape = whole_;
    std::fill(found.shape.dims, found.shape.dims + whole_.rank - 1, int64_t{1});
    found.shape.dims[whole_.rank - 2] = strip.rows;
    return found;
  }

  const Part* parts_;
  size_t count_;
  const Fixed& fixed_;
  const Values& values_;
  Shape whole_;
  bool worthwhile_ = false;
};

}  // namespace
}  // namespace slmc
