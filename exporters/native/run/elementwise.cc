// Standard operators entry by entry, with broadcasting.
#include <cmath>

#include "fusions.h"
#include "matrix.h"
#include "standard.h"

namespace slmc::run {
namespace {

// One binary operation on one type: a row of pairs, either of which may stand still.
using BinaryRow = void (*)(const void* a, int64_t step_a, const void* b, int64_t step_b, void* out, int64_t count);

template <typename In, typename Out, typename Op>
void binary_row(const void* a, int64_t step_a, const void* b, int64_t step_b, void* out, int64_t count) {
  const auto* x = static_cast<const In*>(a);
  const auto* y = static_cast<const In*>(b);
  auto* z = static_cast<Out*>(out);
  if (step_a && step_b) {
    for (int64_t i = 0; i < count; ++i) z[i] = Op::of(x[i], y[i]);
  } else if (step_a) {
    for (int64_t i = 0; i < count; ++i) z[i] = Op::of(x[i], *y);
  } else {
    for (int64_t i = 0; i < count; ++i) z[i] = Op::of(*x, y[i * step_b]);
  }
}

// Integers wrap around as ONNX Runtime's do, without C++'s undefined overflow.
template <typename T>
struct Wrapping {
  using type = T;
};
template <>
struct Wrapping<int64_t> {
  using type = uint64_t;
};
template <typename T>
T wrapped(typename Wrapping<T>::type value) {
  return static_cast<T>(value);
}

#define SLMC_ARITHMETIC(name, symbol)                                       \
  struct name {                                                             \
    template <typename T>                                                   \
    static T of(T a, T b) {                                                 \
      using U = typename Wrapping<T>::type;                                 \
      return wrapped<T>(static_cast<U>(a) symbol static_cast<U>(b));        \
    }                                                                       \
  };
SLMC_ARITHMETIC(Sum, +)
SLMC_ARITHMETIC(Difference, -)
SLMC_ARITHMETIC(Product, *)
#undef SLMC_ARITHMETIC

struct Quotient {
  static float of(float a, float b) { return a / b; }
  static int64_t of(int64_t a, int64_t b) { return b == 0 || (b == -1 && a == INT64_MIN) ? 0 : a / b; }
};
struct Power {
  static float of(float a, float b) { return b == 2.0f ? a * a : std::pow(a, b); }
};

#define SLMC_COMPARISON(name, symbol)                   \
  struct name {                                         \
    template <typename T>                               \
    static uint8_t of(T a, T b) { return a symbol b; }  \
  };
SLMC_COMPARISON(More, >)
SLMC_COMPARISON(AtLeast, >=)
SLMC_COMPARISON(LessThan, <)
SLMC_COMPARISON(AtMost, <=)
SLMC_COMPARISON(Same, ==)
#undef SLMC_COMPARISON

struct BinaryKind {
  const char* type;
  BinaryRow floats, integers;
  bool compares;
};

template <typename Op>
constexpr BinaryKind arithmetic(const char* type) {
  return {type, binary_row<float, float, Op>, binary_row<int64_t, int64_t, Op>, false};
}
template <typename Op>
constexpr BinaryKind comparison(const char* type) {
  return {type, binary_row<float, uint8_t, Op>, binary_row<int64_t, uint8_t, Op>, true};
}

constexpr BinaryKind kBinary[] = {
    arithmetic<Sum>("Add"), arithmetic<Difference>("Sub"), arithmetic<Product>("Mul"), arithmetic<Quotient>("Div"),
    {"Pow", binary_row<float, float, Power>, nullptr, false},
    comparison<More>("Greater"), comparison<AtLeast>("GreaterOrEqual"), comparison<LessThan>("Less"),
    comparison<AtMost>("LessOrEqual"), comparison<Same>("Equal"),
};

class Binary final : public Standard {
 public:
  explicit Binary(const std::string& type) {
    for (const BinaryKind& kind : kBinary)
      if (type == kind.type) kind_ = kind;
    if (type == "Add") same_shape_ = slmc_add_f32;
    if (type == "Mul") same_shape_ = slmc_multiply_f32;
  }

  void compute(const Step& step) override {
    const Tensor a = step.input(0), b = step.input(1);
    const int type = step.type(0);
    const BinaryRow row = type == kFloat ? kind_.floats : type == kInt64 ? kind_.integers : nullptr;
    if (!a.data || !b.data || !row || step.type(1) != type)
      throw Refusal("slmc-run has it for two float32 or two int64 tensors");
    const Shape shape = broadcast(a.shape, b.shape);
    const int made = kind_.compares ? kBool : type;
    auto* out = static_cast<char*>(step.output(0, shape, made));
    if (type == kFloat && same_shape_ && a.shape == b.shape)
      return same_shape_(a.as<float>(), b.as<float>(), 1, reinterpret_cast<float*>(out), shape.count());
    const Shape rows = at_least_one_axis(shape);
    const Strides sa(a.shape, rows), sb(b.shape, rows);
    const size_t size = element_size(type), size_out = element_size(made), last = rows.rank - 1;
    for_each_row(rows, sa, sb, sb, [&](int64_t ia, int64_t ib, int64_t, int64_t at) {
      row(a.as<char>() + ia * size, sa.of[last], b.as<char>() + ib * size, sb.of[last], out + at * size_out,
          rows.last());
    });
  }

 private:
  BinaryKind kind_ = {};
  void (*same_shape_)(const float*, const float*, int64_t, float*, int64_t) = nullptr;
};

using UnaryLoop = void (*)(const float* x, float* y, int64_t count);

template <typename Op>
void unary_loop(const float* x, float* y, int64_t count) {
  for (int64_t i = 0; i < count; ++i) y[i] = Op::of(x[i]);
}

struct Inverse { static float of(float x) { return 1.0f / x; } };
struct Root { static float of(float x) { return std::sqrt(x); } };
struct HyperbolicTangent { static float of(float x) { return std::tanh(x); } };
struct Positive { static float of(float x) { return x < 0 ? 0 : x; } };
struct Gauss { static float of(float x) { return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f)); } };
struct GaussByTanh {
  static float of(float x) {
    return 0.5f * x * (1.0f + std::tanh(0.79788456080286536f * (x + 0.044715f * x * x * x)));
  }
};
struct Negative { static float of(float x) { return -x; } };
struct ErrorFunction { static float of(float x) { return std::erf(x); } };
struct Exponential { static float of(float x) { return std::exp(x); } };
struct Cosine { static float of(float x) { return std::cos(x); } };
struct Sine { static float of(float x) { return std::sin(x); } };
struct Logarithm { static float of(float x) { return std::log(x); } };
struct Magnitude { static float of(float x) { return std::fabs(x); } };
struct NearestWhole { static float of(float x) { return std::nearbyint(x); } };

struct UnaryKind {
  const char* type;
  UnaryLoop loop;
};
constexpr UnaryKind kUnary[] = {
    {"Reciprocal", unary_loop<Inverse>}, {"Sqrt", unary_loop<Root>}, {"Sigmoid", slmc_sigmoid_f32},
    {"Tanh", unary_loop<HyperbolicTangent>}, {"Relu", unary_loop<Positive>}, {"Gelu", unary_loop<Gauss>},
    {"Neg", unary_loop<Negative>}, {"Erf", unary_loop<ErrorFunction>}, {"Exp", unary_loop<Exponential>},
    {"Cos", unary_loop<Cosine>}, {"Sin", unary_loop<Sine>},
    {"Log", unary_loop<Logarithm>}, {"Abs", unary_loop<Magnitude>}, {"Round", unary_loop<NearestWhole>},
};

class Unary final : public Standard {
 public:
  Unary(const std::string& type, const GraphNode& node) {
    for (const UnaryKind& kind : kUnary)
      if (type == kind.type) loop_ = kind.loop;
    if (type == "Gelu" && node.text_or("approximate", "none") == "tanh") loop_ = unary_loop<GaussByTanh>;
  }

  void compute(const Step& step) override {
    const Tensor x = expect_input(step, 0, kFloat);
    loop_(x.as<float>(), static_cast<float*>(step.output(0, x.shape, kFloat)), x.shape.count());
  }

 private:
  UnaryLoop loop_ = nullptr;
};

class Where final : public Standard {
 public:
  void compute(const Step& step) override {
    const Tensor which = expect_input(step, 0, kBool), a = step.input(1), b = step.input(2);
    const int type = step.type(1);
    if (!a.data || !b.data || step.type(2) != type) throw Refusal("its two choices have different types");
    const Shape shape = broadcast(which.shape, broadcast(a.shape, b.shape)), rows = at_least_one_axis(shape);
    auto* out = static_cast<char*>(step.output(0, shape, type));
    const Strides sw(which.shape, rows), sa(a.shape, rows), sb(b.shape, rows);
    const size_t size = element_size(type), last = rows.rank - 1;
    for_each_row(rows, sw, sa, sb, [&](int64_t iw, int64_t ia, int64_t ib, int64_t at) {
      for (int64_t i = 0; i < rows.last(); ++i) {
        const bool first = which.as<uint8_t>()[iw + i * sw.of[last]];
        const char* from = first ? a.as<char>() + (ia + i * sa.of[last]) * size
                                 : b.as<char>() + (ib + i * sb.of[last]) * size;
        std::memcpy(out + (at + i) * size, from, size);
      }
    });
  }
};

template <typename In, typename Out>
void convert(const void* in, void* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i) static_cast<Out*>(out)[i] = static_cast<Out>(static_cast<const In*>(in)[i]);
}

void widen(const void* in, void* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    static_cast<float*>(out)[i] = half_to_float(static_cast<const uint16_t*>(in)[i]);
}

struct Conversion {
  int from, to;
  void (*convert)(const void*, void*, int64_t);
};
constexpr Conversion kConversions[] = {
    {kBool, kFloat, convert<uint8_t, float>}, {kInt64, kFloat, convert<int64_t, float>},
    {kUint8, kFloat, convert<uint8_t, float>}, {kInt8, kFloat, convert<int8_t, float>},
    {kFloat, kFloat, convert<float, float>}, {kInt64, kInt64, convert<int64_t, int64_t>},
    {kBool, kInt64, convert<uint8_t, int64_t>}, {kFloat16, kFloat, widen},
};

class Cast final : public Standard {
 public:
  explicit Cast(const GraphNode& node) : to_(static_cast<int>(node.integer("to"))) {}

  void compute(const Step& step) override {
    const Tensor x = step.input(0);
    for (const Conversion& conversion : kConversions)
      if (x.data && conversion.from == step.type(0) && conversion.to == to_)
        return conversion.convert(x.data, step.output(0, x.shape, to_), x.shape.count());
    throw Refusal("slmc-run does not convert element type " + std::to_string(step.type(0)) + " to " +
                  std::to_string(to_));
  }

 private:
  int to_;
};

}  // namespace

std::unique_ptr<Standard> make_binary(const std::string& type, const GraphNode&) {
  return std::make_unique<Binary>(type);
}
std::unique_ptr<Standard> make_unary(const std::string& type, const GraphNode& node) {
  return std::make_unique<Unary>(type, node);
}
std::unique_ptr<Standard> make_where(const std::string&, const GraphNode&) { return std::make_unique<Where>(); }
std::unique_ptr<Standard> make_cast(const std::string&, const GraphNode& node) { return std::make_unique<Cast>(node); }

}  // namespace slmc::run
