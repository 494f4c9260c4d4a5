// CachedAttention, CachedAttentionHalf and CachedAttentionInt8: the caches are extended in place where the caller lets them.
//
// The new tokens' rows are stored first; then every part, some tokens of one group over some of its slots, is a task.
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>

#include "attention_parts.h"
#include "attention_rows.h"
#include "clones.h"
#include "kernels.h"
#include "operator.h"

namespace slmc {
namespace {

constexpr int64_t kTokensPerStore = 32;   // tokens whose rows are stored by one task
constexpr size_t kCopyTold = 1 << 20;     // bytes of one cache from which on a copy costs more than the attention

// Memory of one thread for one part, aligned to 64 bytes.
float* part_memory(int64_t floats) {
  static thread_local std::vector<float> memory;
  if (static_cast<int64_t>(memory.size()) < floats + 16) memory.resize(floats + 16);
  auto at = reinterpret_cast<uintptr_t>(memory.data());
  return reinterpret_cast<float*>((at + 63) / 64 * 64);
}

int64_t rounded_up(int64_t floats) { return (floats + 15) / 16 * 16; }

void tell_of_copies() {
  static std::once_flag told;
  std::call_once(told, [] {
    std::fputs("slmc: attention copies whole caches at every call; bind the input and the output of every state that "
               "the manifest says is in_place to the same memory\n",
               stderr);
  });
}

constexpr int64_t kMostMixed = 256;  // LARGEST_BLOCK of ops/attention.py

// Each `block` channels of `row` times the Hadamard matrix of Sylvester's order: steps of one kind, whose pairs lie half a
// block apart and come to lie side by side.
SLMC_INLINE void hadamard(float* row, int64_t width, int64_t block) {
  float other[kMostMixed];
  const int64_t half = block / 2;
  for (float* of = row; of < row + width; of += block) {
    float *from = of, *to = other;
    for (int64_t length = 1; length < block; length *= 2) {
      SLMC_LANES
      for (int64_t i = 0; i < half; ++i) {
        const float a = from[i], b = from[half + i];
        to[2 * i] = a + b;
        to[2 * i + 1] = a - b;
      }
      std::swap(from, to);
    }
    if (from != of) std::copy(from, from + block, of);
  }
}

template <typename Codec>
class CachedAttention : public Kernel {
  using Element = typename Codec::Element;
  using Caches = Cache<Element>[2];

 public:
  explicit CachedAttention(const Node& node)
      : heads_(node.integer("heads")), theta_(node.number("theta")), rotate_(node.number("rotate") != 0),
        window_(node.integer_or("window", 0)), rotary_(node.integer_or("rotary", 0)),
        mixed_(Codec::kScaled ? node.integer_or("hadamard", 0) : 0), scale_(node.number_or("scale", 0)),
        cap_(node.number_or("cap", 0)) {
    if (heads_ < 1) throw Refusal("attribute heads = " + std::to_string(heads_) + " is not positive");
    if (window_ < 0) throw Refusal("attribute window = " + std::to_string(window_) + " is negative");
    if (!(cap_ >= 0)) throw Refusal("attribute cap = " + std::to_string(cap_) + " is negative");
    if (mixed_ < 0 || mixed_ > kMostMixed || (mixed_ & (mixed_ - 1)))
      throw Refusal("attribute hadamard = " + std::to_string(mixed_) + " is neither 0 nor a power of two up to " +
                    std::to_string(kMostMixed));
  }

  void compute(const Call& call) override {
    const Tensor q = call.input(0), k = call.input(1), v = call.input(2), cache = call.input(3);
    const Tensor position = call.input(Codec::kScaled ? 7 : 5);
    const Sizes sizes = checked(q, k, v, cache, position);
    Caches caches;
    for (size_t i = 0; i < 2; ++i) {
      caches[i] = {static_cast<Element*>(carried(call, 3 + i, cache.shape, sizeof(Element))), nullptr};
      if (Codec::kScaled)
        caches[i].scales = static_cast<float*>(carried(call, 5 + i, {1, sizes.groups, sizes.length}, sizeof(float)));
    }
    auto* y = static_cast<float*>(call.output(0, q.shape));
    if (sizes.time == 0) return;
    const Turns turns = turns_of(call, sizes);
    call.parallel((sizes.time + kTokensPerStore - 1) / kTokensPerStore, [&](size_t task) {
      const int64_t first = task * kTokensPerStore, last = std::min(sizes.time, first + kTokensPerStore);
      store(sizes, turns, k.as<float>(), v.as<float>(), first, last, caches);
    });
    const Parts parts(sizes);
    Stretches stretches(sizes, parts);
    call.parallel(parts.count(sizes), [&](size_t task) {
      attend(sizes, parts, turns, task, q.as<float>(), caches, stretches, y);
    });
    if (parts.stretches == 1) return;
    for (int64_t query = 0; query < sizes.time * sizes.heads; ++query) {
      float* row = y + output_row(sizes, query) * sizes.width;
      stretches.add_up(sizes, parts, query, shrink(), row);
      mix(row, sizes.width);
    }
  }

 private:
  void mix(float* row, int64_t width) const {
    if (mixed_) dispatched<hadamard>(row, width, mixed_);
  }
  // What twice mixed is multiplied with to be what it was.
  float shrink() const { return mixed_ ? 1.0f / static_cast<float>(mixed_) : 1.0f; }

  // Rows of a group's tokens and of their shared heads follow one another in parts, those of a token's heads in y.
  static int64_t output_row(const Sizes& s, int64_t query) {
    const int64_t shared = s.heads / s.groups, group = query / (s.time * shared);
    const int64_t token = query / shared % s.time;
    return token * s.heads + group * shared + query % shared;
  }

  Turns turns_of(const Call& call, const Sizes& sizes) {
    if (!rotate_) return {};
    const int64_t width = rotary_ ? rotary_ : sizes.width;
    if (width < 0 || width % 2 || width > sizes.width)
      throw Refusal(std::to_string(width) + " channels of heads of width " + std::to_string(sizes.width) +
                    " do not turn: an even number of at most the width can");
    constexpr size_t kTables = Codec::kScaled ? 8 : 6;
    const Tensor cos = call.input(kTables), sin = call.input(kTables + 1);
    if (!cos.data && !sin.data) return {sizes, frequencies(width)};
    expect_shape(cos, {1, sizes.time, width / 2}, "cos");
    expect_shape(sin, cos.shape, "sin");
    return {cos.as<float>(), sin.as<float>(), width / 2};
  }

  const std::vector<float>& frequencies(int64_t width) {
    std::call_once(turns_known_, [&] {
      for (int64_t i = 0; i < width / 2; ++i)
        frequencies_.push_back(1.0f / std::pow(theta_, static_cast<float>(2 * i) / static_cast<float>(width)));
    });
    if (static_cast<int64_t>(frequencies_.size()) != width / 2)
      throw Refusal("heads are " + std::to_string(width) + " wide, those of an earlier call " +
                    std::to_string(2 * frequencies_.size()));
    return frequencies_;
  }

  void store(const Sizes& s, const Turns& turns, const float* k, const float* v, int64_t first, int64_t last,
             const Caches& caches) const {
    float* row = part_memory(s.width);
    for (int64_t t = first; t < last; ++t)
      for (int64_t group = 0; group < s.groups; ++group) {
        const int64_t slot = group * s.length + s.start + t, place = (t * s.groups + group) * s.width;
        turns.apply(k + place, t, s.width, 1.0f, row);
        mix(row, s.width);
        Codec::store(row, caches[0].rows + slot * s.width, caches[0].scales + slot, s.width);
        std::copy(v + place, v + place + s.width, row);
        mix(row, s.width);
        Codec::store(row, caches[1].rows + slot * s.width, caches[1].scales + slot, s.width);
      }
  }

  void attend(const Sizes& s, const Parts& parts, const Turns& turns, int64_t task, const float* q,
              const Caches& caches, Stretches& stretches, float* y) const {
    const int64_t stretch = task % parts.stretches, tile = task / parts.stretches % parts.tiles;
    const int64_t group = task / parts.stretches / parts.tiles, shared = s.heads / s.groups;
    const int64_t first = tile * parts.tokens, last = std::min(s.time, first + parts.tokens);
    const int64_t queries = (last - first) * shared, floats = rounded_up(queries * s.width);
    float* memory = part_memory(2 * floats + rounded_up(2 * queries) + attention_scratch(queries, s.width) / 4);
    const float scale = shrink() * (scale_ ? scale_ : 1.0f / std::sqrt(static_cast<float>(s.width)));
    for (int64_t i = 0; i < queries; ++i) {
      const int64_t t = first + i / shared, head = group * shared + i % shared;
      turns.apply(q + (t * s.heads + head) * s.width, t, s.width, scale, memory + i * s.width);
      mix(memory + i * s.width, s.width);
    }
    const int64_t at = (stretch * s.groups + group) * s.time * shared + first * shared;
    const bool whole = parts.stretches == 1;
    const auto of_group = [&](const float* scales) { return scales ? scales + group * s.length : nullptr; };
    AttentionPart part;
    part.q = memory;
    part.queries = queries;
    part.shared = shared;
    part.width = s.width;
    part.own = s.start + first;
    part.window = s.window;
    part.cap = cap_;
    part.end = std::min(s.floor() + (stretch + 1) * parts.slots, s.start + last);
    part.first = std::max(s.floor() + stretch * parts.slots, part.own + 1 - s.window);
    part.keys = caches[0].rows + group * s.length * s.width;
    part.values = caches[1].rows + group * s.length * s.width;
    part.key_scales = of_group(caches[0].scales);
    part.value_scales = of_group(caches[1].scales);
    part.mixed = whole ? memory + floats : &stretches.mixed[at * s.width];
    part.most = whole ? memory + 2 * floats : &stretches.most[at];
    part.total = whole ? memory + 2 * floats + queries : &stretches.total[at];
    part.scratch = memory + 2 * floats + rounded_up(2 * queries);
    const AttentionKernels& kernels = attention_kernels(s.width);
    (kernels.*Codec::kKernel)(part);
    if (!whole) return;
    for (int64_t i = 0; i < queries; ++i) {
      float* out = y + ((first + i / shared) * s.heads + group * shared + i % shared) * s.width;
      const float total = part.total[i] / shrink();
      for (int64_t d = 0; d < s.width; ++d) out[d] = part.mixed[i * s.width + d] / total;
      mix(out, s.width);
    }
  }

  Sizes checked(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& cache, const Tensor& position) const {
    if (cache.shape.rank != 4 || cache.shape.dims[0] != 1 || q.shape.rank != 3)
      throw Refusal("keys are " + cache.shape.text() + " and q " + q.shape.text() +
                    ", expected [1, groups, length, width] and [1, time, heads * width]");
    const int64_t *dims = cache.shape.dims, time = q.shape.dims[1];
    expect_shape(position, {1, 1}, "position");
    const int64_t start = position.as<int64_t>()[0], length = dims[2];
    const Sizes sizes{time, heads_, dims[1], length, dims[3], start, window_ ? std::min(window_, length) : length};
    expect_shape(q, {1, time, heads_ * sizes.width}, "q");
    expect_shape(k, {1, time, sizes.groups * sizes.width}, "k");
    expect_shape(v, k.shape, "v");
    if (mixed_ && sizes.width % mixed_)
      throw Refusal("attribute hadamard = " + std::to_string(mixed_) + " does not divide heads of width " +
                    std::to_string(sizes.width));
    if (sizes.groups < 1 || heads_ % sizes.groups)
      throw Refusal(std::to_string(heads_) + " heads cannot share " + std::to_string(sizes.groups) + " groups");
    if (sizes.start < 0 || sizes.start + time > sizes.length)
      throw Refusal(std::to_string(sizes.start + time) + " tokens do not fit into a context of " +
                    std::to_string(sizes.length));
    return sizes;
  }

  // The output that carries input `index` on, holding what the input holds; nothing is copied if they are one memory.
  static void* carried(const Call& call, size_t index, const Shape& shape, size_t size) {
    const Tensor before = call.input(index);
    expect_shape(before, shape, "cache");
    void* after = call.output(index - 2, shape);
    if (after != before.data) {
      const size_t bytes = shape.count() * size;
      if (bytes >= kCopyTold) tell_of_copies();
      std::memcpy(after, before.data, bytes);
    }
    return after;
  }

  int64_t heads_;
  float theta_;
  bool rotate_;
  int64_t window_, rotary_, mixed_;  // 0: all slots before, all channels, none
  float scale_, cap_;        // 0: 1 / sqrt(width), none
  std::once_flag turns_known_;
  std::vector<float> frequencies_;  // of the pairs' angles; none without rotation
};

template <typename Codec>
Operator described(const char* name, std::vector<Port> inputs, std::vector<Port> outputs) {
  return {name, inputs, outputs,
          [](const Node& node) -> std::unique_ptr<Kernel> { return std::make_unique<CachedAttention<Codec>>(node); },
          [](const Inference& inference) {
            inference.output(0, inference.input(0), kFloat);
            for (size_t i = 0; i < 2; ++i) {
              inference.output(1 + i, inference.input(3 + i), Codec::kType);
              if (Codec::kScaled) inference.output(3 + i, inference.input(5 + i), kFloat);
            }
          },
          true};
}

}  // namespace

Operator cached_attention_operator() {
  return described<Exact>(
      "CachedAttention",
      {{"q", kFloat}, {"k", kFloat}, {"v", kFloat}, {"keys", kFloat}, {"values", kFloat}, {"position", kInt64},
       {"cos", kFloat, kOptional}, {"sin", kFloat, kOptional}},
      {{"y", kFloat}, {"keys_out", kFloat}, {"values_out", kFloat}});
}

Operator cached_attention_half_operator() {
  return described<Halves>(
      "CachedAttentionHalf",
      {{"q", kFloat}, {"k", kFloat}, {"v", kFloat}, {"keys", kFloat16}, {"values", kFloat16}, {"position", kInt64},
       {"cos", kFloat, kOptional}, {"sin", kFloat, kOptional}},
      {{"y", kFloat}, {"keys_out", kFloat16}, {"values_out", kFloat16}});
}

Operator cached_attention_int8_operator() {
  return described<Codes>(
      "CachedAttentionInt8",
      {{"q", kFloat}, {"k", kFloat}, {"v", kFloat}, {"keys", kInt8}, {"values", kInt8},
       {"key_scales", kFloat}, {"value_scales", kFloat}, {"position", kInt64}, {"cos", kFloat, kOptional},
       {"sin", kFloat, kOptional}},
      {{"y", kFloat}, {"keys_out", kInt8}, {"values_out", kInt8}, {"key_scales_out", kFloat},
       {"value_scales_out", kFloat}});
}

}  // namespace slmc
