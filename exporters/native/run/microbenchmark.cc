#include "microbenchmark.h"

#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstring>

namespace slmc::run {
namespace {

constexpr uint64_t kMostGraphBytes = 1 << 30, kMostDataBytes = uint64_t{1} << 40;

Contents opened(const std::string& path, uint64_t most) { return Contents(MappedFile(path, most)); }

// Every segment of a tensor `shift` bytes further to the right, around its end.
void rotate(const BlockTensor& tensor, size_t shift, const uint8_t* block, uint8_t* moved) {
  for (size_t at = tensor.offset; at < tensor.offset + tensor.bytes; at += tensor.segment) {
    std::memcpy(moved + at, block + at + tensor.segment - shift, shift);
    std::memcpy(moved + at + shift, block + at, tensor.segment - shift);
  }
}

void check(const BlockTensor& tensor, size_t size) {
  if (tensor.segment == 0 || tensor.bytes % tensor.segment || tensor.offset > size || tensor.bytes > size - tensor.offset)
    throw Refusal("a tensor does not lie in its block");
}

// Values of mean 0 and variance 1, the same every time: the sum of twelve equally likely ones.
std::vector<float> normal_values(size_t count) {
  std::vector<float> values(count, -6);
  uint64_t state = 1;
  for (float& value : values)
    for (int i = 0; i < 12; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      value += static_cast<float>(state >> 40) / static_cast<float>(1 << 24);
    }
  return values;
}

// Further inputs and outputs in their order, changed where they lie.
IoRecord states_of(const ModelRecord& model) {
  if (model.inputs.empty() || model.inputs.size() != model.outputs.size()) throw Refusal("no benchmark of ours");
  IoRecord io;
  for (size_t i = 1; i < model.inputs.size(); ++i)
    io.states.push_back({model.inputs[i].name, model.outputs[i].name, model.inputs[i].shape, model.inputs[i].type, 0, true});
  return io;
}

}  // namespace

ExpandedFile::ExpandedFile(const std::string& block, const std::vector<BlockTensor>& tensors, size_t repeats, std::string path)
    : path_(std::move(path)) {
  const MappedFile whole(block, kMostDataBytes);
  for (const BlockTensor& tensor : tensors) check(tensor, whole.size());
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path_.c_str(), "wb"), std::fclose);
  bool written = file != nullptr;
  std::vector<uint8_t> moved(whole.data(), whole.data() + whole.size());
  for (size_t number = 0; number < repeats && written; ++number) {
    for (const BlockTensor& tensor : tensors)
      rotate(tensor, number * tensor.step % tensor.segment, whole.data(), moved.data());
    written = std::fwrite(moved.data(), 1, moved.size(), file.get()) == moved.size();
  }
  if (written && std::fflush(file.get()) == 0) return;
  unlink(path_.c_str());
  throw Refusal(path_ + ": cannot be written; is there room?");
}

ExpandedFile::~ExpandedFile() { unlink(path_.c_str()); }

Microbenchmark::Microbenchmark(const std::string& graph, const std::string& data, const std::string& data_name, int threads)
    : graph_(opened(graph, kMostGraphBytes)), data_(opened(data, kMostDataBytes)),
      record_(read_model(graph_.bytes(), data_.bytes(), data_name)) {
  const IoRecord io = states_of(record_);
  const PortRecord &in = record_.inputs[0], &out = record_.outputs[0];
  x_ = normal_values(bytes_of(in.shape, in.type) / sizeof(float));
  network_ = std::make_unique<Network>(record_, io, threads);
  network_->feed(in.name, kFloat, in.shape, x_.data());
  run();
  const Tensor& y = network_->value(out.name);
  for (int64_t i = 0; i < y.shape.count(); ++i)
    if (!std::isfinite(y.as<float>()[i]))
      throw Refusal(graph + ": the chain's values run away; this is a fault of slmc: please report it");
}

StateCalls::StateCalls(const std::string& graph, int64_t states, int64_t width)
    : graph_(opened(graph, kMostGraphBytes)), record_(read_model(graph_.bytes(), {}, "")) {
  IoRecord io;
  io.tokens = "tokens", io.logits = "logits";
  for (int64_t i = 0; i < states; ++i)
    io.states.push_back({"s" + std::to_string(i), "t" + std::to_string(i), {1, width}, kFloat, 0, false});
  network_ = std::make_unique<Network>(record_, io, 1);
}

void StateCalls::run() {
  const int64_t token = 0;
  network_->run(&token, 1, Network::Asked::kLast);
}

}  // namespace slmc::run
