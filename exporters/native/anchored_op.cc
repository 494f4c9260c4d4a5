// AnchoredAttention: attention over the last tokens and the first ones, through a cache of as many slots, of float32
// or of 8-bit codes (AnchoredAttentionInt8).
//
// Slot t of the cache holds token t while t < anchors; behind them lies a ring of length - anchors slots, which holds as
// many last tokens. A token that is not present is nobody's key and gets 0. A head is a task; its tokens follow one
// another, each stored before it is attended to.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "attention_rows.h"
#include "clones.h"
#include "operator.h"

namespace slmc {
namespace {

struct AnchoredSizes {
  int64_t time, heads, length, width, start, anchors;

  int64_t slot(int64_t token) const {
    return token < anchors ? token : anchors + (token - anchors) % (length - anchors);
  }
};

// One head's part of the inputs; rows of q, k, v, y are `stride` apart, those of turns width / 2.
template <typename Element>
struct HeadPart {
  const float *q, *k, *v, *present, *cos, *sin, *seen;
  Cache<Element> keys, values;
  float *y, *scratch;
  int64_t stride;
};

SLMC_INLINE void turn(const float* x, const float* cos, const float* sin, int64_t width, float scale, float* out) {
  const int64_t half = width / 2;
  SLMC_LANES
  for (int64_t i = 0; i < half; ++i) {
    out[i] = (x[i] * cos[i] - x[i + half] * sin[i]) * scale;
    out[i + half] = (x[i + half] * cos[i] + x[i] * sin[i]) * scale;
  }
}

// scratch: length scores, as many flags, width values of a row.
template <typename Codec>
SLMC_INLINE void attend(AnchoredSizes s, HeadPart<typename Codec::Element> part) {
  float *scores = part.scratch, *seen = scores + s.length, *row = seen + s.length;
  const float root = 1.0f / std::sqrt(static_cast<float>(s.width));
  const auto scale_of = [](const auto& cache, int64_t slot) { return Codec::kScaled ? cache.scales[slot] : 1.0f; };
  const auto store = [&](const float* from, const auto& cache, int64_t slot) {
    Codec::store(from, cache.rows + slot * s.width, cache.scales + (Codec::kScaled ? slot : 0), s.width);
  };
  std::copy(part.seen, part.seen + s.length, seen);
  for (int64_t t = 0; t < s.time; ++t) {
    const int64_t slot = s.slot(s.start + t), filled = std::min(s.length, s.start + t + 1);
    const float *cos = part.cos + t * (s.width / 2), *sin = part.sin + t * (s.width / 2);
    turn(part.k + t * part.stride, cos, sin, s.width, 1.0f, row);
    store(row, part.keys, slot);
    store(part.v + t * part.stride, part.values, slot);
    seen[slot] = part.present[t];
    float* y = part.y + t * part.stride;
    std::fill(y, y + s.width, 0.0f);
    if (part.present[t] == 0) continue;
    turn(part.q + t * part.stride, cos, sin, s.width, root, row);
    float most = -3.0e38f, total = 0;
    for (int64_t j = 0; j < filled; ++j) {
      const float product = lane_dot(row, part.keys.rows + j * s.width, s.width) * scale_of(part.keys, j);
      scores[j] = seen[j] != 0 ? product : -3.0e38f;
      most = larger(scores[j], most);
    }
    SLMC_LANES
    for (int64_t j = 0; j < filled; ++j) scores[j] = exponential(scores[j] - most);
    for (int64_t j = 0; j < filled; ++j) {
      total += scores[j];
      const float share = scores[j] * scale_of(part.values, j);
      const auto* value = part.values.rows + j * s.width;
      if (share == 0) continue;
      SLMC_LANES
      for (int64_t i = 0; i < s.width; ++i) y[i] += share * value[i];
    }
    for (int64_t i = 0; i < s.width; ++i) y[i] /= total;
  }
}

template <typename Codec>
class AnchoredAttention : public Kernel {
 public:
  explicit AnchoredAttention(const Node& node)
      : heads_(node.integer("heads")), anchors_(node.integer("anchors")), theta_(node.number("theta")) {
    if (heads_ < 1) throw Refusal("attribute heads = " + std::to_string(heads_) + " is not positive");
    if (anchors_ < 0) throw Refusal("attribute anchors = " + std::to_string(anchors_) + " is negative");
  }

  void compute(const Call& call) override {
    const AnchoredSizes s = checked(call);
    const Tensor q = call.input(0), seen = call.input(6);
    Cache<Element> caches[2] = {};
    for (size_t i = 0; i < 2; ++i) {
      caches[i].rows = static_cast<Element*>(carried(call, 4 + i, sizeof(Element)));
      if (Codec::kScaled) caches[i].scales = static_cast<float*>(carried(call, 7 + i, sizeof(float)));
    }
    std::vector<float> before(seen.as<float>(), seen.as<float>() + s.length);  // its output may be the same memory
    auto* y = static_cast<float*>(call.output(0, q.shape));
    auto* after = static_cast<float*>(call.output(3, seen.shape));
    std::copy(before.begin(), before.end(), after);
    const auto* present = static_cast<const float*>(call.data(3));
    for (int64_t t = 0; t < s.time; ++t) after[s.slot(s.start + t)] = present[t];
    std::vector<float> turns(s.time * s.width);
    float *cos = turns.data(), *sin = cos + s.time * (s.width / 2);
    fill_turns(s, cos, sin);
    const int64_t scratch = 2 * s.length + s.width;
    std::vector<float> memory(s.heads * scratch);
    call.parallel(static_cast<size_t>(s.heads), [&](size_t task) {
      const int64_t head = static_cast<int64_t>(task), column = head * s.width;
      const auto at = [&](size_t input) { return static_cast<const float*>(call.data(input)) + column; };
      const auto own = [&](const Cache<Element>& cache) {
        float* scales = Codec::kScaled ? cache.scales + head * s.length : nullptr;
        return Cache<Element>{cache.rows + head * s.length * s.width, scales};
      };
      const HeadPart<Element> part{at(0), at(1), at(2), present, cos, sin, before.data(), own(caches[0]),
                                   own(caches[1]), y + column, memory.data() + head * scratch, s.heads * s.width};
      dispatched<attend<Codec>>(s, part);
    });
  }

 private:
  using Element = typename Codec::Element;
  static constexpr size_t kPosition = Codec::kScaled ? 9 : 7;

  AnchoredSizes checked(const Call& call) const {
    const Tensor q = call.input(0), keys = call.input(4), position = call.input(kPosition);
    if (keys.shape.rank != 4 || keys.shape.dims[0] != 1 || q.shape.rank != 3)
      throw Refusal("keys are " + keys.shape.text() + " and q " + q.shape.text() +
                    ", expected [1, heads, length, width] and [1, time, heads * width]");
    const int64_t time = q.shape.dims[1], length = keys.shape.dims[2], width = keys.shape.dims[3];
    expect_shape(position, {1, 1}, "position");
    const AnchoredSizes s{time, heads_, length, width, position.as<int64_t>()[0], anchors_};
    expect_shape(keys, {1, heads_, length, width}, "keys");
    expect_shape(call.input(5), keys.shape, "values");
    expect_shape(q, {1, time, heads_ * width}, "q");
    expect_shape(call.input(1), q.shape, "k");
    expect_shape(call.input(2), q.shape, "v");
    expect_shape(call.input(3), {1, time}, "present");
    expect_shape(call.input(6), {1, length}, "seen");
    if (Codec::kScaled) {
      expect_shape(call.input(7), {1, heads_, length}, "key_scales");
      expect_shape(call.input(8), {1, heads_, length}, "value_scales");
    }
    if (length <= anchors_)
      throw Refusal(std::to_string(length) + " slots leave none behind " + std::to_string(anchors_) + " anchors");
    if (width % 2) throw Refusal("heads of odd width " + std::to_string(width) + " do not turn");
    if (s.start < 0) throw Refusal("position " + std::to_string(s.start) + " is negative");
    return s;
  }

  // The output that carries input `index` on; nothing is copied if they are one memory.
  static void* carried(const Call& call, size_t index, size_t size) {
    const Tensor before = call.input(index);
    void* after = call.output(index - 3, before.shape);
    if (after != before.data) std::memcpy(after, before.data, before.shape.count() * size);
    return after;
  }

  void fill_turns(const AnchoredSizes& s, float* cos, float* sin) const {
    const int64_t half = s.width / 2;
    for (int64_t i = 0; i < half; ++i) {
      const float inverse = 1.0f / std::pow(theta_, static_cast<float>(2 * i) / static_cast<float>(s.width));
      for (int64_t t = 0; t < s.time; ++t) {
        const float angle = static_cast<float>(s.start + t) * inverse;
        cos[t * half + i] = std::cos(angle);
        sin[t * half + i] = std::sin(angle);
      }
    }
  }

  int64_t heads_, anchors_;
  float theta_;
};

}  // namespace

Operator anchored_attention_operator() {
  return {"AnchoredAttention",
          {{"q", kFloat}, {"k", kFloat}, {"v", kFloat}, {"present", kFloat}, {"keys", kFloat}, {"values", kFloat},
           {"seen", kFloat}, {"position", kInt64}},
          floats({"y", "keys_out", "values_out", "seen_out"}),
          make_kernel<AnchoredAttention<Exact>>, shaped_like<0, 4, 5, 6>};
}

Operator anchored_attention_int8_operator() {
  return {"AnchoredAttentionInt8",
          {{"q", kFloat}, {"k", kFloat}, {"v", kFloat}, {"present", kFloat}, {"keys", kInt8}, {"values", kInt8},
           {"seen", kFloat}, {"key_scales", kFloat}, {"value_scales", kFloat}, {"position", kInt64}},
          {{"y", kFloat}, {"keys_out", kInt8}, {"values_out", kInt8}, {"seen_out", kFloat}, {"key_scales_out", kFloat},
           {"value_scales_out", kFloat}},
          make_kernel<AnchoredAttention<Codes>>,
          [](const Inference& inference) {
            inference.output(0, inference.input(0), kFloat);
            for (size_t i = 1; i < 6; ++i) inference.output(i, inference.input(3 + i), i < 3 ? kInt8 : kFloat);
          }};
}

}  // namespace slmc
