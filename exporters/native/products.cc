#include "products.h"

#include "kernels.h"

namespace slmc {
namespace {

// A product of this cost takes one core some ten microseconds; waking a second for less does not pay.
constexpr int64_t kWorthThreads = 1 << 20;
constexpr int64_t kCostPerTask = 1 << 18;

int64_t units_per_task(const Work& work) {
  const int64_t grains = (work.units + work.grain - 1) / work.grain;
  const int64_t wanted = work.cost / kCostPerTask;
  if (wanted >= grains) return work.grain;
  return wanted ? (grains + wanted - 1) / wanted * work.grain : work.units;
}

}  // namespace

void run_works(const Call& call, const Work* works, size_t count) {
  int64_t cost = 0;
  for (size_t i = 0; i < count; ++i) cost += works[i].cost;
  size_t tasks = 0;
  for (size_t i = 0; i < count; ++i) {
    const Work& work = works[i];
    if (work.units == 0) continue;
    if (cost < kWorthThreads) work.run(work.body, 0, work.units);
    tasks += static_cast<size_t>((work.units + units_per_task(work) - 1) / units_per_task(work));
  }
  if (cost < kWorthThreads || tasks == 0) return;
  call.parallel(tasks, [works](size_t task) {
    auto left = static_cast<int64_t>(task);
    for (const Work* work = works;; ++work) {
      if (work->units == 0) continue;
      const int64_t each = units_per_task(*work), own = (work->units + each - 1) / each;
      if (left >= own) {
        left -= own;
        continue;
      }
      const int64_t first = left * each, last = first + each;
      return work->run(work->body, first, last < work->units ? last : work->units);
    }
  });
}

bool InputKey::operator==(const InputKey& other) const {
  return x == other.x && kernels == other.kernels && tokens == other.tokens && K == other.K && group == other.group &&
         bits == other.bits && zeros == other.zeros && activation_bits == other.activation_bits;
}

const ReadyInputs::Entry* ReadyInputs::find(const InputKey& key) const {
  for (int i = 0; i < count_; ++i)
    if (entries_[i]->key == key) return entries_[i];
  return nullptr;
}

void ReadyInputs::keep(const Entry& entry, Arena& arena) {
  if (count_ < kMost) entries_[count_++] = new (arena.take<Entry>(1)) Entry(entry);
}

void Product::compute(const Call& call) {
  ReadyInputs ready;
  const Work work = begin(call, call_arena(), ready);
  run_works(call, &work, 1);
}

Work dense_work(const QMatrix& m, int64_t activation_bits, const Call& call, Arena& arena, ReadyInputs& ready) {
  const Tensor x = call.input(0);
  const int64_t tokens = tokens_of(x, m.K);
  float* y = output_like(call, x, m.N);
  if (tokens == 0) return {};
  const LinearKernels& linear = linear_kernels(m.group, m.bits);
  const int bits = static_cast<int>(activation_bits);
  const InputKey key{x.as<float>(), &linear, tokens, m.K, m.group, m.bits, m.steps ? 2 : m.zeros != nullptr, bits};
  const ReadyInputs::Entry* found = ready.find(key);
  const Prepared prepared = found ? found->dense : linear.prepare(m, x.as<float>(), tokens, bits, arena);
  if (!found) ready.keep({key, prepared, nullptr}, arena);
  return work_of(m.N, kRowTile, m.N * m.K * tokens,
                 [m, prepared, y, &linear](int64_t first, int64_t last) { linear.multiply(m, prepared, y, first, last); },
                 arena);
}

int64_t activation_bits_of(const Node& node) {
  const int64_t bits = node.integer_or("activation_bits", 32);
  if (bits != 32 && bits != 8)
    throw Refusal("attribute activation_bits = " + std::to_string(bits) + "; known are 8 and 32");
  return bits;
}

void infer_product(const Inference& inference) {
  SymbolicShape shape = inference.input(0);
  if (shape.dims.empty()) return;
  shape.dims.back() = inference.integer("N");
  shape.symbols.back() = nullptr;
  inference.output(0, shape, kFloat);
}

int64_t tokens_of(const Tensor& x, int64_t K) {
  if (x.shape.rank == 0 || x.shape.last() != K)
    throw Refusal("input 'x' is " + x.shape.text() + ", expected [..., " + std::to_string(K) + "]");
  return x.shape.count() / K;
}

float* output_like(const Call& call, const Tensor& x, int64_t N) {
  Shape shape = x.shape;
  shape.dims[shape.rank - 1] = N;
  return static_cast<float*>(call.output(0, shape));
}

}  // namespace slmc
