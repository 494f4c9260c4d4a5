// QLinear, TableLinear and HalfLinear: y[..., n] = sum_k x[..., k] w[n, k], with w quantised in groups, to even steps or
// to those of a table, or stored in float16.
//
// QLinear's and TableLinear's optional attribute activation_bits: 32 (default) multiplies x as it is; 8 rounds x per token and per
// min(group, 128) inputs to 127 steps either way of zero (scale = max |x| / 127), so that products are integer.
#include "kernels.h"
#include "products.h"
#include "qmatrix_ports.h"

namespace slmc {
namespace {

class QLinear : public Product {
 public:
  QLinear(const Node& node, Table table) : ports_(node, table), activation_bits_(activation_bits_of(node)) {}

  Work begin(const Call& call, Arena& arena, ReadyInputs& ready) const override {
    return dense_work(ports_.bind(call), activation_bits_, call, arena, ready);
  }

 private:
  QMatrixPorts ports_;
  int64_t activation_bits_;
};

class HalfLinear : public Product {
 public:
  explicit HalfLinear(const Node& node) { constant_ = node.constant(1, &w_); }

  Work begin(const Call& call, Arena& arena, ReadyInputs&) const override {
    const Tensor w = constant_ ? w_ : call.input(1);
    if (w.shape.rank != 2) throw Refusal("input 'w' is " + w.shape.text() + ", expected [N, K]");
    const HalfMatrix m{w.as<uint16_t>(), w.shape.dims[0], w.shape.dims[1]};
    if (m.N <= 0 || m.K <= 0) throw Refusal("input 'w' is empty");
    const Tensor x = call.input(0);
    const int64_t tokens = tokens_of(x, m.K);
    float* y = output_like(call, x, m.N);
    if (tokens == 0) return {};
    const LinearKernels& linear = *kernels().linear;
    return work_of(m.N, kRowTile, m.N * m.K * tokens,
                   [m, tokens, y, &linear, values = x.as<float>()](int64_t first, int64_t last) {
                     linear.multiply_half(m, values, tokens, y, first, last);
                   },
                   arena);
  }

 private:
  Tensor w_;
  bool constant_ = false;
};

template <Table table>
std::unique_ptr<Kernel> make_qlinear(const Node& node) {
  return std::make_unique<QLinear>(node, table);
}

}  // namespace

Operator qlinear_operator() {
  return {"QLinear", qmatrix_ports({"x", kFloat}, kZeroPort), floats({"y"}), make_qlinear<kEvenSteps>, infer_product, true};
}

Operator table_linear_operator() {
  return {"TableLinear", qmatrix_ports({"x", kFloat}, kStepPort), floats({"y"}), make_qlinear<kGivenSteps>, infer_product,
          true};
}

std::unique_ptr<Kernel> make_float4_linear(const Node& node) { return make_qlinear<kFloat4>(node); }

Operator half_linear_operator() {
  return {"HalfLinear",
          {{"x", kFloat}, {"w", kFloat16}},
          {{"y", kFloat}},
          make_kernel<HalfLinear>,
          [](const Inference& inference) {
            SymbolicShape shape = inference.input(0);
            const SymbolicShape w = inference.input(1);
            if (shape.dims.empty() || w.dims.size() != 2) return;
            shape.dims.back() = w.dims[0];
            shape.symbols.back() = w.symbols[0];
            inference.output(0, shape, kFloat);
          }};
}

}  // namespace slmc
