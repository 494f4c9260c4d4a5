// SparseLinear: y[..., n] = sum_k x[..., k] w[n, k] with an N:M or four-bit float matrix w. One that keeps everything is
// dense (linear_op.cc).
//
// A few tokens whose activations are rounded to 8 bits meet the stored codes directly where the processor has a kernel
// for that; activations of 32 bits are three of 8, one for what rounding to the others leaves. Otherwise a tile of rows is
// decoded to 8 bits per weight, then multiplied by the dense kernels: the more tokens, the less decoding weighs.
#include "decoded_rows.h"
#include "kernels.h"
#include "products.h"
#include "qmatrix_ports.h"
#include "quads.h"

namespace slmc {
namespace {

constexpr const char* kNames[] = {"codes", "scales", "high", "patterns"};
constexpr int64_t kLargest = int64_t{1} << 31;
constexpr int64_t kDirectTokens = 8;  // from here on decoding once is cheaper than reading codes for every token
constexpr int64_t kDigits = 3;        // of 8 bits, that a float is taken for
constexpr float kNegligible = 1e-7f;  // of a block's largest

void expect(bool holds, const std::string& otherwise) {
  if (!holds) throw Refusal(otherwise);
}

std::string listed(const char* attribute, int64_t value) {
  return std::string("attribute ") + attribute + " = " + std::to_string(value);
}

class SparseLinear : public Product {
 public:
  explicit SparseLinear(const Node& node) : activation_bits_(activation_bits_of(node)) {
    read_attributes(node);
    for (const Port port : {kCodes, kScales, kHigh, kPatterns}) {
      Tensor tensor;
      constant_[port] = node.constant(1 + port, &tensor);
      if (constant_[port]) set(&matrix_, port, tensor);
    }
    matrix_.table = &table_;
    if (matrix_.quads && constant_[kCodes] && constant_[kScales] && (constant_[kPatterns] || !table_.width) &&
        (constant_[kHigh] || !high_bits(matrix_.bits)))
      quads_ = std::make_unique<DecodedQuads>(matrix_);
  }

  Work begin(const Call& call, Arena& arena, ReadyInputs& ready) const override {
    if (quads_) return dense_work(quads_->matrix(), activation_bits_, call, arena, ready);
    SparseMatrix m = matrix_;
    for (const Port port : {kCodes, kScales, kHigh, kPatterns})
      if (!constant_[port]) set(&m, port, call.input(1 + port));
    const Tensor input = call.input(0);
    const int64_t tokens = tokens_of(input, m.K);
    auto* y = output_like(call, input, m.N);
    if (tokens == 0) return {};
    const auto* x = input.as<float>();
    const SparseKernels* direct = kernels().tiles;
    if (tokens >= kDirectTokens || !direct || !m.tiled) return decode_and_multiply(m, x, tokens, y, arena);
    return multiply_directly(m, *direct, *prepare(m, *direct, x, tokens, arena, ready), tokens, y, arena);
  }

 private:
  enum Port { kCodes, kScales, kHigh, kPatterns, kPorts };

  void read_attributes(const Node& node) {
    SparseMatrix& m = matrix_;
    m.K = node.integer("K");
    m.N = node.integer("N");
    m.group = node.integer("group");
    m.pattern_rows = node.integer("pattern_rows");
    const int64_t bits = node.integer("bits"), kept = node.integer("kept"), period = node.integer("period");
    const int64_t float4 = node.integer("float4");
    expect(m.K > 0 && m.K < kLargest, listed("K", m.K) + " is not in 1 .. 2^31 - 1");
    expect(m.N > 0 && m.N < kLargest, listed("N", m.N) + " is not in 1 .. 2^31 - 1");
    expect(bits >= 2 && bits <= 8 && bits != 7, listed("bits", bits) + "; known are 2 .. 6 and 8");
    expect(m.group > 0 && m.group < kLargest && m.group % 16 == 0 && (m.group <= 128 ? 128 % m.group : m.group % 128) == 0,
           listed("group", m.group) + "; known are 16, 32, 64 and multiples of 128");
    expect(period == 4 || period == 8 || period == 16, listed("period", period) + "; known are 4, 8 and 16");
    expect(kept > 0 && kept <= period, listed("kept", kept) + " is not in 1 .. " + std::to_string(period));
    expect(m.pattern_rows == 1 || m.pattern_rows == 16, listed("pattern_rows", m.pattern_rows) + "; known are 1 and 16");
    expect(float4 == 0 || (float4 == 1 && bits == 4), listed("float4", float4) + "; known are 0 and, for 4 bits, 1");
    m.bits = static_cast<int>(bits);
    m.float4 = float4 == 1;
    m.groups = (m.K + m.group - 1) / m.group;
    m.units = (m.K + kUnitInputs - 1) / kUnitInputs;
    m.kept = kUnitInputs * kept / period;
    if (kept < period) table_ = PatternTable(static_cast<int>(kept), static_cast<int>(period));
    read_tile(node.integer_or("tile", 0), kept, period);
  }

  // What is made ready depends on the inputs' places alone.
  const SparseInput* prepare(const SparseMatrix& m, const SparseKernels& direct, const float* x, int64_t tokens,
                             Arena& arena, ReadyInputs& ready) const {
    const InputKey key{x, &direct, tokens, m.K, m.group, m.bits, m.short_sums, static_cast<int>(activation_bits_)};
    if (const ReadyInputs::Entry* found = ready.find(key)) return found->sparse;
    int64_t digits = 1;
    if (activation_bits_ == 32) x = in_digits(m, x, tokens, arena, &digits);
    const SparseInput* made = direct.prepare(m, x, tokens * digits, arena);
    ready.keep({key, {}, made}, arena);
    return made;
  }

  Work multiply_directly(const SparseMatrix& m, const SparseKernels& direct, const SparseInput& input, int64_t tokens,
                         float* y, Arena& arena) const {
    const int64_t digits = input.tokens / tokens;
    float* parts = digits == 1 ? y : arena.take<float>(digits * tokens * m.N);
    const auto body = [m, &direct, &input, parts, digits, tokens, y](int64_t first, int64_t last) {
      direct.multiply(m, input, parts, first, last);
      if (digits == 1) return;
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t n = first; n < last; ++n) {
          float sum = parts[((digits - 1) * tokens + t) * m.N + n];  // the smallest first
          for (int64_t d = digits - 1; d-- > 0;) sum += parts[(d * tokens + t) * m.N + n];
          y[t * m.N + n] = sum;
        }
    };
    return work_of(m.N, kRowTile, m.N * m.K * digits * tokens, body, arena);
  }

  // x [tokens, K] as rows [digits, tokens, K] that add up to it, each to be rounded to 8 bits as it is read; as many as
  // leave no more of a block than float32 would.
  static const float* in_digits(const SparseMatrix& m, const float* x, int64_t tokens, Arena& arena, int64_t* digits) {
    auto* rows = arena.take<float>(kDigits * tokens * m.K);
    auto* rounded = arena.take<float>(kActivationGroup);
    const int64_t block = m.group < kActivationGroup ? m.group : kActivationGroup;
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t k = 0; k < m.K; k += block) {
        const int64_t length = k + block < m.K ? block : m.K - k;
        float* digit = rows + t * m.K + k;
        std::memcpy(digit, x + t * m.K + k, length * sizeof(float));
        float first = 0;
        for (int64_t d = 0; d < kDigits; ++d, digit += tokens * m.K) {
          const float largest = round_to_steps(digit, length, rounded);
          if (d == 0) first = largest;
          if (largest > kNegligible * first && d >= *digits) *digits = d + 1;
          if (d + 1 < kDigits)
            for (int64_t i = 0; i < length; ++i) digit[tokens * m.K + i] = digit[i] - rounded[i];
        }
      }
    return rows;
  }

  void read_tile(int64_t tile, int64_t kept, int64_t period) {
    SparseMatrix& m = matrix_;
    expect(tile == 0 || tile == 1 || tile == kTile, listed("tile", tile) + "; known are 0, 1 and 16");
    m.quads = tile == 0;
    if (tile != kTile) return;
    const bool shared = m.pattern_rows > 1;
    m.words = shared && !m.float4 && m.group % 64 == 0 && m.group * kept / period % 32 == 0 && m.padded() == m.groups * m.group;
    m.short_sums = !m.words && (shared || m.float4 || m.group < 64);
    const bool by_place = period <= 8 && (m.bits == 4 || (m.bits == 8 && !m.short_sums));
    expect(kept < period && m.N >= kTile && (m.words || by_place),
           "attribute tile = 16 is for 16 rows or more, and with 4 or 8 inputs to a pattern for 4 bits and, in groups of "
           "64 or more of a pattern of a row's own, 8 bits; else for whole groups of a multiple of 32 codes with a pattern "
           "of 16 rows, up to a multiple of 128 inputs");
    m.tiled = m.N / kTile * kTile;
  }

  void set(SparseMatrix* m, Port port, const Tensor& tensor) const {
    if ((port == kHigh && high_bits(m->bits) == 0) || (port == kPatterns && table_.width == 0)) {
      expect(!tensor.data, std::string("input '") + kNames[port] + "' is not for this matrix");
      return;
    }
    Shape law{m->N, m->groups};
    if (port == kCodes) law = {m->N, m->units * m->code_bytes()};
    if (port == kHigh) law = {m->N, m->units * m->high_bytes()};
    if (port == kPatterns)
      law = {(m->N + m->pattern_rows - 1) / m->pattern_rows, m->units * table_.unit_bytes()};
    expect_shape(tensor, law, kNames[port]);
    if (port == kCodes) m->codes = tensor.as<uint8_t>();
    if (port == kScales) m->scales = tensor.as<uint16_t>();
    if (port == kHigh) m->high = tensor.as<uint8_t>();
    if (port == kPatterns) m->patterns = tensor.as<uint8_t>();
  }

  Work decode_and_multiply(const SparseMatrix& m, const float* x, int64_t tokens, float* y, Arena& arena) const {
    QMatrix dense;
    dense.scales = m.scales;
    dense.N = m.N;
    dense.K = m.K;
    dense.groups = m.groups;
    dense.group = m.group;
    dense.bits = 8;
    const LinearKernels& linear = linear_kernels(m.group, dense.bits);
    const Prepared prepared = linear.prepare(dense, x, tokens, static_cast<int>(activation_bits_), arena);
    const auto body = [m, dense, prepared, y, &linear](int64_t first, int64_t last) {
      DecodedRows decoded(m, dense);
      for (int64_t n = first; n < last; n += kRowTile) {
        const int64_t end = n + kRowTile < last ? n + kRowTile : last;
        linear.multiply(decoded.part(n, end), prepared, y, n, end);
      }
    };
    return work_of(m.N, kRowTile, m.N * m.K * tokens, body, arena);
  }

  SparseMatrix matrix_;
  PatternTable table_;
  std::unique_ptr<DecodedQuads> quads_;
  int64_t activation_bits_;
  bool constant_[kPorts] = {};
};

std::unique_ptr<Kernel> make(const Node& node) {
  const bool dense = node.integer("kept") == node.integer("period") && node.integer("float4") == 1;
  if (dense && node.integer_or("tile", 0) == kTile) return make_float4_linear(node);
  return std::make_unique<SparseLinear>(node);
}

}  // namespace

Operator sparse_linear_operator() {
  return {"SparseLinear", qmatrix_ports({"x", kFloat}, {"patterns", kUint8, kOptional}), floats({"y"}), make,
          infer_product, true};
}

}  // namespace slmc
