#include "artifact.h"

#include <algorithm>
#include <cstring>

namespace slmc::run {
namespace {

constexpr uint64_t kMostManifestBytes = 64 << 20, kMostGraphBytes = 1 << 30, kMostDataBytes = uint64_t{1} << 40, kMostTokenizerBytes = 1 << 27;
constexpr uintptr_t kAlignment = 64;
constexpr const char *kManifest = "manifest.json", *kGraph = "model.onnx", *kData = "model.onnx.data", *kTokenizer = "tokenizer.json";

}  // namespace

Manifest read_manifest(const Source& source) {
  const Contents file = source.open(kManifest, kMostManifestBytes);
  return parse_manifest(file.bytes().text());
}

Artifact::Artifact(Source source, int threads) : source_(std::move(source)), manifest_(read_manifest(source_)) {
  const bool has_data = manifest_.files.count(kData);
  check_file(source_, manifest_, kGraph, true);
  if (has_data) check_file(source_, manifest_, kData, false);
  if (has_data) data_ = source_.open(kData, kMostDataBytes);
  if (reinterpret_cast<uintptr_t>(data_.bytes().data) % kAlignment) throw Refusal(std::string(kData) + ": not aligned to 64 bytes");
  {
    const Contents graph = source_.open(kGraph, kMostGraphBytes);  // what is needed of it is copied
    record_ = read_model(graph.bytes(), data_.bytes(), kData);
  }
  network_ = std::make_unique<Network>(record_, manifest_.io, threads);
  record_.nodes.clear();
  record_.nodes.shrink_to_fit();
}

const Tokenizer& Artifact::tokenizer() {
  if (!tokenizer_) {
    if (!manifest_.token_ids_only.empty())
      throw Refusal("this model's text goes in and out as token ids (--ids, --print-ids): " + manifest_.token_ids_only);
    check_file(source_, manifest_, kTokenizer, true);
    const Contents file = source_.open(kTokenizer, kMostTokenizerBytes);
    tokenizer_ = std::make_unique<Tokenizer>(file.bytes().text());
  }
  return *tokenizer_;
}

void Artifact::reset() {
  network_->reset();
  fed_ = 0;
}

int64_t Artifact::room() const { return manifest_.context < 0 ? INT64_MAX : manifest_.context - fed_; }

size_t Artifact::call_tokens() const {
  constexpr size_t kFewest = 16, kMost = 64, kEight = 8, kWeightBytes = 1 << 17;  // of weights for each token
  return std::clamp(data_.bytes().size / kWeightBytes / kEight * kEight, kFewest, kMost);
}

void Artifact::feed(const int32_t* ids, size_t count, const Every& every) {
  if (static_cast<uint64_t>(count) > static_cast<uint64_t>(room()))
    throw Refusal(std::to_string(fed_) + " tokens were read and " + std::to_string(count) +
                  " more do not fit into the context of " + std::to_string(manifest_.context) + "; shorten the text");
  if (manifest_.whole_texts && fed_) throw Refusal("this model reads a text in one call; reset it before the next text");
  const size_t most = manifest_.whole_texts ? count : call_tokens();
  for (size_t at = 0; at < count; at += most) {
    call_.assign(ids + at, ids + std::min(count, at + most));
    using Asked = Network::Asked;
    network_->run(call_.data(), call_.size(), every ? Asked::kEvery : at + most < count ? Asked::kNone : Asked::kLast);
    fed_ += static_cast<int64_t>(call_.size());
    if (every) every(network_->logits(), at);
  }
}

size_t Artifact::logit_count() const {
  const Tensor& logits = network_->logits();
  return fed_ ? static_cast<size_t>(logits.shape.last()) : 0;
}

const float* Artifact::logits() const {
  const Tensor& logits = network_->logits();
  return logits.as<float>() + (logits.shape.count() - logits.shape.last());
}

void Artifact::save(uint8_t* memory) const {
  std::memcpy(memory, &fed_, sizeof fed_);
  network_->save(memory + sizeof fed_);
}

void Artifact::restore(const uint8_t* memory) {
  int64_t fed = 0;
  std::memcpy(&fed, memory, sizeof fed);
  if (fed < 0 || (manifest_.context >= 0 && fed > manifest_.context)) throw Refusal("this is no saved state of this model");
  fed_ = fed;
  network_->restore(memory + sizeof fed_);
}

}  // namespace slmc::run
