// EventLinear: y[..., n] = sum_k x[..., k] w[n, k] over an input-major matrix, where inputs that are zero cost nothing.
//
// Its optional attribute activation_bits means what QLinear's does: 8 rounds x per token and per min(group, 128) inputs.
// An input that is infinite or not a number reaches every output of its token, as it does in a dense product.
#include <cmath>

#include "elementary.h"
#include "kernels.h"
#include "products.h"
#include "qmatrix_ports.h"

namespace slmc {
namespace {

constexpr int64_t kLargest = int64_t{1} << 31;
constexpr int64_t kCostInUse = 2;           // of a weight, beside those of rows that follow one another
constexpr int64_t kTaskWords = 128;         // a task's piece of a row: half a kilobyte
constexpr int64_t kManyTokens = 8;
constexpr double kDenseShare = 0.4;         // of inputs in use, from where on many tokens are a dense product

// x [K] rounded to 127 steps of its largest, per min(group, 128) inputs of a group.
void round_to_grid(const EventMatrix& m, const float* x, float* rounded) {
  for (int64_t g = 0; g < m.groups; ++g) {
    const int64_t end = (g + 1) * m.group < m.K ? (g + 1) * m.group : m.K;
    for (int64_t k = g * m.group; k < end; k += kActivationGroup)
      round_to_steps(x + k, k + kActivationGroup < end ? kActivationGroup : end - k, rounded + k);
  }
}

// Lists those of one token's inputs that are not zero, of these signs.
Events list_events(const EventMatrix& m, const float* x, Arena& arena, Signs signs) {
  auto* index = arena.take<int32_t>(m.K + kListRoom);
  auto* first = arena.take<int32_t>(m.groups + 1);
  auto* sums = arena.take<float>(m.groups);
  int32_t count = 0;
  for (int64_t g = 0; g < m.groups; ++g) {
    const int64_t end = (g + 1) * m.group < m.K ? (g + 1) * m.group : m.K;
    first[g] = count;
    count += kernels().events->list(x, g * m.group, end, signs, index + count);
    if (!m.zeros) continue;
    sums[g] = 0;
    for (int32_t i = first[g]; i < count; ++i) sums[g] += x[index[i]];
  }
  first[m.groups] = count;
  const float spike = count ? x[index[0]] : 0;
  bool same = std::isfinite(spike);
  for (int32_t i = 0; i < count && same; ++i) same = x[index[i]] == spike;
  return {x, index, first, m.zeros ? sums : nullptr, same ? spike : 0};
}

// Whether spikes of both signs are all that a token's inputs hold: their size is one number.
bool two_signed(const EventMatrix& m, const Events& e) {
  const int32_t count = e.first[m.groups];
  if (e.spike != 0 || count == 0) return false;
  const float size = std::fabs(e.x[e.index[0]]);
  for (int32_t i = 1; i < count; ++i)
    if (std::fabs(e.x[e.index[i]]) != size) return false;
  return std::isfinite(size);
}

class EventLinear : public Product {
 public:
  explicit EventLinear(const Node& node) : activation_bits_(node.integer_or("activation_bits", 32)) {
    EventMatrix& m = matrix_;
    m.K = positive(node, "K");
    m.N = positive(node, "N");
    m.group = positive(node, "group");
    const int64_t bits = node.integer("bits");
    if (bits < 2 || bits > 8 || bits == 7)
      throw Refusal("attribute bits = " + std::to_string(bits) + "; known are 2 .. 6 and 8");
    if (activation_bits_ != 32 && activation_bits_ != 8)
      throw Refusal("attribute activation_bits = " + std::to_string(activation_bits_) + "; known are 8 and 32");
    m.bits = static_cast<int>(bits);
    m.groups = (m.K + m.group - 1) / m.group;
    for (size_t port = 1; port <= 4; ++port) {
      Tensor tensor;
      constant_[port] = node.constant(port, &tensor);
      if (constant_[port]) set(&m, port, tensor);
    }
  }

  Work begin(const Call& call, Arena& arena, ReadyInputs&) const override {
    EventMatrix m = matrix_;
    for (size_t port = 1; port <= 4; ++port)
      if (!constant_[port]) set(&m, port, call.input(port));
    const Tensor input = call.input(0);
    const int64_t tokens = tokens_of(input, m.K);
    float* y = output_like(call, input, m.N);
    if (tokens == 0) return {};
    return multiply(m, input.as<float>(), tokens, y, arena);
  }

 private:
  Work multiply(const EventMatrix& m, const float* x, int64_t tokens, float* y, Arena& arena) const {
    if (activation_bits_ == 8) {
      float* rounded = arena.take<float>(tokens * m.K);
      for (int64_t t = 0; t < tokens; ++t) round_to_grid(m, x + t * m.K, rounded + t * m.K);
      x = rounded;
    }
    auto* events = arena.take<Events>(tokens);
    auto* negative = arena.take<Events>(tokens);  // ternary spikes are two binary products, in integers both
    int64_t active = 0;
    bool ternary = false;
    for (int64_t t = 0; t < tokens; ++t) {
      const float* row = x + t * m.K;
      events[t] = list_events(m, row, arena, kAnySign);
      negative[t] = {};
      active += events[t].first[m.groups];
      if (!two_signed(m, events[t])) continue;
      events[t] = list_events(m, row, arena, kPositive);
      negative[t] = list_events(m, row, arena, kNegative);
      ternary = true;
    }
    float* less = ternary ? arena.take<float>(tokens * m.N) : nullptr;
    const bool dense = tokens >= kManyTokens && static_cast<double>(active) > kDenseShare * static_cast<double>(tokens * m.K);
    const auto body = [=](int64_t begin, int64_t end) {
      if (dense) return kernels().events->product(m, x, tokens, y, begin, end);
      const int64_t from = begin * m.per_word(), to = end * m.per_word() < m.N ? end * m.per_word() : m.N;
      for (int64_t t = 0; t < tokens; ++t) {
        float* out = y + t * m.N;
        kernels().events->multiply(m, events[t], out, begin, end);
        if (!negative[t].x) continue;
        kernels().events->multiply(m, negative[t], less + t * m.N, begin, end);
        for (int64_t n = from; n < to; ++n) out[n] += less[t * m.N + n];
      }
    };
    return work_of(m.words(), kTaskWords, kCostInUse * active * m.N, body, arena);
  }

  static int64_t positive(const Node& node, const char* name) {
    const int64_t value = node.integer(name);
    if (value <= 0 || value >= kLargest)
      throw Refusal(std::string("attribute ") + name + " = " + std::to_string(value) + " is not in 1 .. 2^31 - 1");
    return value;
  }

  static void set(EventMatrix* m, size_t port, const Tensor& tensor) {
    const bool has_high = high_bits(m->bits) > 0;
    if (port == 3 && !has_high) {
      if (tensor.data) throw Refusal("input 'high' is for 3, 5 and 6 bits, not for " + std::to_string(m->bits));
      return;
    }
    if (port == 4 && !tensor.data) return;
    if (port == 1) {
      expect_shape(tensor, {m->K, m->row_bytes()}, "codes");
      m->codes = tensor.as<uint8_t>();
    } else if (port == 2) {
      expect_shape(tensor, {m->groups, m->N}, "scales");
      m->scales = tensor.as<uint16_t>();
    } else if (port == 3) {
      expect_shape(tensor, {m->K, m->high_row_bytes()}, "high");
      m->high = tensor.as<uint8_t>();
    } else {
      expect_shape(tensor, {m->groups, m->N}, "zeros");
      m->zeros = tensor.as<uint8_t>();
    }
  }

  EventMatrix matrix_;
  int64_t activation_bits_;
  bool constant_[5] = {};
};

}  // namespace

Operator event_linear_operator() {
  return {"EventLinear", qmatrix_ports({"x", kFloat}), floats({"y"}), make_kernel<EventLinear>, infer_product, true};
}

}  // namespace slmc
