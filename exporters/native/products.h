// What operators that multiply by a matrix share: memory for one call, tasks over output features, and inputs that are
// made ready once for several matrices.
#pragma once
#include <new>
#include <type_traits>

#include "matrix.h"
#include "operator.h"
#include "sparse.h"

namespace slmc {

// This thread's memory, empty again: for one call, which does not call another.
inline Arena& call_arena() {
  static thread_local Arena arena;
  arena.reset();
  return arena;
}

// A product that is bound to its matrix and its inputs: what is left is to run over all its units, which are output
// features or groups of them, from any thread.
struct Work {
  int64_t units = 0;
  int64_t grain = 1;  // units that one task takes at least
  int64_t cost = 0;   // weights that are multiplied, of all tokens
  void (*run)(const void* body, int64_t first, int64_t last) = nullptr;
  const void* body = nullptr;
};

// The work of body(first, last), which is kept in the arena.
template <typename Body>
Work work_of(int64_t units, int64_t grain, int64_t cost, const Body& body, Arena& arena) {
  static_assert(std::is_trivially_destructible<Body>::value, "the arena forgets what it holds");
  const auto run = [](const void* erased, int64_t first, int64_t last) {
    (*static_cast<const Body*>(erased))(first, last);
  };
  return {units, grain, cost, run, new (arena.take<Body>(1)) Body(body)};
}

// Runs works that do not depend on one another, in parallel where there is enough to do.
void run_works(const Call& call, const Work* works, size_t count);

// What an input was made ready for: equal keys give equal bytes.
struct InputKey {
  const void* x;
  const void* kernels;
  int64_t tokens, K, group;
  int bits, zeros, activation_bits;
  bool operator==(const InputKey& other) const;
};

// Inputs that were made ready in one call, for the next product that wants them likewise.
class ReadyInputs {
 public:
  struct Entry {
    InputKey key;
    Prepared dense;
    const SparseInput* sparse;
  };
  // Null where there is none yet.
  const Entry* find(const InputKey& key) const;
  void keep(const Entry& entry, Arena& arena);

 private:
  static constexpr int kMost = 8;
  const Entry* entries_[kMost];
  int count_ = 0;
};

class Product : public Kernel {
 public:
  void compute(const Call& call) final;
  const Product* product() const final { return this; }
  // Binds the matrix, makes the output and the inputs ready; no units where there is nothing to do.
  virtual Work begin(const Call& call, Arena& arena, ReadyInputs& ready) const = 0;
};

// y = x W^T of a dense matrix; activation_bits: 32, or 8 where x is rounded first.
Work dense_work(const QMatrix& m, int64_t activation_bits, const Call& call, Arena& arena, ReadyInputs& ready);

// The kernel of a SparseLinear node whose matrix of four-bit floats is dense.
std::unique_ptr<Kernel> make_float4_linear(const Node& node);

// A node's attribute activation_bits, which is 32 where it has none.
int64_t activation_bits_of(const Node& node);

// A shape rule: y is x with attribute N as its last size.
void infer_product(const Inference& inference);

// x [..., K] of a product as [tokens, K].
int64_t tokens_of(const Tensor& x, int64_t K);

// y [..., N].
float* output_like(const Call& call, const Tensor& x, int64_t N);

}  // namespace slmc
