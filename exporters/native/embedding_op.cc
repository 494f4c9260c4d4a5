// QEmbedding, TableEmbedding and SignEmbedding: rows of a stored matrix picked by token.
//
//   QEmbedding:    y[..., k] = scales[token, g] * (code[token, k] - zero[token, g])
//   TableEmbedding: y[..., k] = scales[token, g] * steps[code[token, k]]
//   SignEmbedding: y[..., k] = +1 where bit k of row `token` is set, else -1;  codes uint8 [N, ceil(K / 8)]
#include "qmatrix_ports.h"

namespace slmc {
namespace {

// The tokens, each in 0 .. rows - 1; the output is their shape with K added.
struct Picked {
  const int64_t* tokens;
  int64_t count;
  float* y;
};

Picked pick(const Call& call, int64_t rows, int64_t K) {
  const Tensor tokens = call.input(0);
  Shape shape = tokens.shape;
  if (shape.rank == kMaxRank) throw Refusal("input 'tokens' has too many dimensions");
  const Picked picked{tokens.as<int64_t>(), shape.count(), nullptr};
  for (int64_t i = 0; i < picked.count; ++i)
    if (picked.tokens[i] < 0 || picked.tokens[i] >= rows)
      throw Refusal("token " + std::to_string(picked.tokens[i]) + " is not in 0 .. " + std::to_string(rows - 1));
  shape.dims[shape.rank++] = K;
  return {picked.tokens, picked.count, static_cast<float*>(call.output(0, shape))};
}

class QEmbedding : public Kernel {
 public:
  QEmbedding(const Node& node, Table table) : ports_(node, table) {}

  void compute(const Call& call) override {
    const QMatrix m = ports_.bind(call);
    const Picked picked = pick(call, m.N, m.K);
    for (int64_t i = 0; i < picked.count; ++i) decode_row(m, picked.tokens[i], m.K, picked.y + i * m.K);
  }

 private:
  QMatrixPorts ports_;
};

class SignEmbedding : public Kernel {
 public:
  explicit SignEmbedding(const Node& node) : K_(node.integer("K")), N_(node.integer("N")) {
    if (K_ <= 0 || N_ <= 0) throw Refusal("attributes K and N must be positive");
    constant_ = node.constant(1, &codes_);
    if (constant_) expect_shape(codes_, law(), "codes");
  }

  void compute(const Call& call) override {
    const Tensor given = constant_ ? codes_ : call.input(1);
    if (!constant_) expect_shape(given, law(), "codes");
    const Picked picked = pick(call, N_, K_);
    for (int64_t i = 0; i < picked.count; ++i) {
      const uint8_t* row = given.as<uint8_t>() + picked.tokens[i] * ((K_ + 7) / 8);
      float* y = picked.y + i * K_;
      for (int64_t k = 0; k < K_; ++k) y[k] = (row[k / 8] >> (k % 8)) & 1 ? 1.0f : -1.0f;
    }
  }

 private:
  Shape law() const { return {N_, (K_ + 7) / 8}; }

  int64_t K_, N_;
  Tensor codes_;
  bool constant_ = false;
};

void infer(const Inference& inference) {
  SymbolicShape shape = inference.input(0);
  shape.dims.push_back(inference.integer("K"));
  shape.symbols.push_back(nullptr);
  inference.output(0, shape, kFloat);
}

}  // namespace

template <Table table>
static Operator rows_of(const char* name, const Port& last) {
  return {name, qmatrix_ports({"tokens", kInt64}, last), {{"y", kFloat}},
          [](const Node& node) -> std::unique_ptr<Kernel> { return std::make_unique<QEmbedding>(node, table); }, infer, true};
}

Operator qembedding_operator() { return rows_of<kEvenSteps>("QEmbedding", kZeroPort); }

Operator table_embedding_operator() { return rows_of<kGivenSteps>("TableEmbedding", kStepPort); }

Operator sign_embedding_operator() {
  return {"SignEmbedding", {{"tokens", kInt64}, {"codes", kUint8}}, {{"y", kFloat}},
          make_kernel<SignEmbedding>, infer};
}

}  // namespace slmc
