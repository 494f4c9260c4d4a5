// CachedAttention and CachedAttentionInt8: the caches are extended in place where the caller lets them.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "operator.h"

namespace slmc {
namespace {

constexpr float kSmallestScale = 1e-12f;  // SMALLEST_SCALE of ops/attention.py
constexpr int kLanes = 8;                 // independent sums, so that the compiler can use vectors

// Rows of float32 as they are.
struct Exact {
  using Element = float;
  static constexpr ElementType kType = kFloat;
  static constexpr bool kScaled = false;

  static void store(const float* row, float* cache, float*, int64_t width) {
    std::copy(row, row + width, cache);
  }
};

// Rows of 8-bit codes, each row with a scale of its own.
struct Codes {
  using Element = int8_t;
  static constexpr ElementType kType = kInt8;
  static constexpr bool kScaled = true;

  static void store(const float* row, int8_t* cache, float* scale, int64_t width) {
    float most = kSmallestScale;
    for (int64_t i = 0; i < width; ++i) most = std::max(most, std::fabs(row[i]));
    *scale = most / 127.0f;
    for (int64_t i = 0; i < width; ++i) cache[i] = static_cast<int8_t>(std::nearbyint(row[i] / *scale));
  }
};

template <typename Element>
float dot(const float* a, const Element* b, int64_t count) {
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += a[i + lane] * static_cast<float>(b[i + lane]);
  for (; i < count; ++i) sums[0] += a[i] * static_cast<float>(b[i]);
  return ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

// The sizes of one call.
struct Sizes {
  int64_t time, heads, groups, length, width, start;
};

// What the keys and values of one sequence live in, and the scales of codes.
template <typename Element>
struct Cache {
  Element* rows;
  float* scales;
};

// cos and sin of every new token's angles, [time, width / 2] each; empty without rotation.
struct Turns {
  std::vector<float> cos, sin;

  Turns(const Sizes& sizes, float theta, bool rotate) {
    if (!rotate) return;
    const int64_t half = sizes.width / 2;
    cos.resize(sizes.time * half);
    sin.resize(sizes.time * half);
    for (int64_t i = 0; i < half; ++i) {
      const float period = std::pow(theta, static_cast<float>(2 * i) / static_cast<float>(sizes.width));
      for (int64_t t = 0; t < sizes.time; ++t) {
        const float angle = static_cast<float>(sizes.start + t) * (1.0f / period);
        cos[t * half + i] = std::cos(angle);
        sin[t * half + i] = std::sin(angle);
      }
    }
  }

  void apply(const float* row, int64_t t, int64_t width, float* out) const {
    if (cos.empty()) {
      std::copy(row, row + width, out);
      return;
    }
    const int64_t half = width / 2;
    const float *c = &cos[t * half], *s = &sin[t * half];
    for (int64_t i = 0; i < half; ++i) {
      out[i] = row[i] * c[i] - row[half + i] * s[i];
      out[half + i] = row[half + i] * c[i] + row[i] * s[i];
    }
  }
};

// One group of heads over all new tokens, in their order; `work` has room for width + length floats.
template <typename Codec>
void attend_group(const Sizes& sizes, int64_t group, const float* q, const float* k, const float* v,
                  const Turns& turns, Cache<typename Codec::Element> keys, Cache<typename Codec::Element> values,
                  float* y, float* work) {
  const int64_t width = sizes.width, shared = sizes.heads / sizes.groups;
  float *row = work, *shares = work + width;
  const float root = 1.0f / std::sqrt(static_cast<float>(width));
  const auto scale = [](const auto& cache, int64_t slot) { return Codec::kScaled ? cache.scales[slot] : 1.0f; };
  for (int64_t t = 0; t < sizes.time; ++t) {
    const int64_t slot = sizes.start + t, place = t * sizes.groups + group;
    turns.apply(k + place * width, t, width, row);
    Codec::store(row, keys.rows + slot * width, keys.scales + slot, width);
    Codec::store(v + place * width, values.rows + slot * width, values.scales + slot, width);
    for (int64_t head = group * shared; head < (group + 1) * shared; ++head) {
      turns.apply(q + (t * sizes.heads + head) * width, t, width, row);
      float most = -INFINITY, total = 0.0f;
      for (int64_t s = 0; s <= slot; ++s) {
        shares[s] = dot(row, keys.rows + s * width, width) * scale(keys, s) * root;
        most = std::max(most, shares[s]);
      }
      for (int64_t s = 0; s <= slot; ++s) total += shares[s] = std::exp(shares[s] - most);
      float* out = y + (t * sizes.heads + head) * width;
      std::fill(out, out + width, 0.0f);
      for (int64_t s = 0; s <= slot; ++s) {
        const float share = shares[s] / total * scale(values, s);
        const auto* value = values.rows + s * width;
        for (int64_t i = 0; i < width; ++i) out[i] += share * static_cast<float>(value[i]);
      }
    }
  }
}

template <typename Codec>
class CachedAttention : public Kernel {
  using Element = typename Codec::Element;

 public:
  explicit CachedAttention(const Node& node)
      : heads_(node.integer("heads")), theta_(node.number("theta")), rotate_(node.number("rotate") != 0) {
    if (heads_ < 1) throw Refusal("attribute heads = " + std::to_string(heads_) + " is not positive");
  }

  void compute(const Call& call) override {
    const Tensor q = call.input(0), k = call.input(1), v = call.input(2), cache = call.input(3);
    const Tensor position = call.input(Codec::kScaled ? 7 : 5);
    const Sizes sizes = checked(q, k, v, cache, position);
    std::vector<Cache<Element>> caches;
    for (size_t i = 0; i < 2; ++i) {
      Cache<Element> kept{static_cast<Element*>(carried(call, 3 + i, cache.shape, sizeof(Element))), nullptr};
      if (Codec::kScaled)
        kept.scales = static_cast<float*>(carried(call, 5 + i, {1, sizes.groups, sizes.length}, sizeof(float)));
      caches.push_back(kept);
    }
    auto* y = static_cast<float*>(call.output(0, q.shape));
    const Turns turns(sizes, theta_, rotate_);
    const int64_t room = sizes.width + sizes.length;
    std::vector<float> work(sizes.groups * room);
    call.parallel(sizes.groups, [&](size_t group) {
      const auto of_group = [&](Cache<Element> all) {
        return Cache<Element>{all.rows + group * sizes.length * sizes.width,
                              all.scales ? all.scales + group * sizes.length : nullptr};
      };
      attend_group<Codec>(sizes, group, q.as<float>(), k.as<float>(), v.as<float>(), turns, of_group(caches[0]),
                          of_group(caches[1]), y, &work[group * room]);
    });
  }

 private:
  Sizes checked(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& cache, const Tensor& position) const {
    if (cache.shape.rank != 4 || cache.shape.dims[0] != 1 || q.shape.rank != 3)
      throw Refusal("keys are " + cache.shape.text() + " and q " + q.shape.text() +
                    ", expected [1, groups, length, width] and [1, time, heads * width]");
    const int64_t *dims = cache.shape.dims, time = q.shape.dims[1];
    expect_shape(position, {1, 1}, "position");
    const Sizes sizes{time, heads_, dims[1], dims[2], dims[3], position.as<int64_t>()[0]};
    expect_shape(q, {1, time, heads_ * sizes.width}, "q");
    expect_shape(k, {1, time, sizes.groups * sizes.width}, "k");
    expect_shape(v, k.shape, "v");
    if (heads_ % sizes.groups)
      throw Refusal(std::to_string(heads_) + " heads cannot share " + std::to_string(sizes.groups) + " groups");
    if (rotate_ && sizes.width % 2) throw Refusal("heads of odd width " + std::to_string(sizes.width) + " do not turn");
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
    if (after != before.data) std::memcpy(after, before.data, shape.count() * size);
    return after;
  }

  int64_t heads_;
  float theta_;
  bool rotate_;
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
          }};
}

}  // namespace

Operator cached_attention_operator() {
  return described<Exact>("CachedAttention",
                          {{"q", kFloat}, {"k", kFloat}, {"v", kFloat}, {"keys", kFloat},
                           {"values", kFloat}, {"position", kInt64}},
                          {{"y", kFloat}, {"keys_out", kFloat}, {"values_out", kFloat}});
}

Operator cached_attention_int8_operator() {
  return described<Codes>(
      "CachedAttentionInt8",
      {{"q", kFloat}, {"k", kFloat}, {"v", kFloat}, {"keys", kInt8}, {"values", kInt8},
       {"key_scales", kFloat}, {"value_scales", kFloat}, {"position", kInt64}},
      {{"y", kFloat}, {"keys_out", kInt8}, {"values_out", kInt8}, {"key_scales_out", kFloat},
       {"value_scales_out", kFloat}});
}

}  // namespace slmc
