// An artifact's folder, opened: the model ready to be fed, and its tokenizer if it is one that we read.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "manifest.h"
#include "network.h"
#include "tokenizer.h"

namespace slmc::run {

// Raises Refusal for what is not a manifest of ours.
Manifest read_manifest(const Source& source);

class Artifact {
 public:
  // Raises Refusal: something is missing, damaged, or needs what we do not have.
  Artifact(const std::string& folder, int threads) : Artifact(Source(folder), threads) {}
  Artifact(Source source, int threads);

  const Manifest& manifest() const { return manifest_; }
  // Raises Refusal where tokenizer.json is missing or of a kind that we do not read.
  const Tokenizer& tokenizer();

  void reset();
  // Feeds tokens in calls of at most call_tokens(); `every`, if given, sees each call's logits [tokens, V] and its first
  // token's place, and otherwise only those of the last token are made where the graph lets us.
  using Every = std::function<void(const Tensor& logits, size_t first)>;
  void feed(const int32_t* ids, size_t count, const Every& every = nullptr);
  // Of the last token fed, or of the text so far: float32 [V] or [classes].
  const float* logits() const;
  size_t logit_count() const;
  // Tokens that still fit; INT64_MAX without a limit.
  int64_t room() const;
  int64_t fed() const { return fed_; }

  size_t state_bytes() const { return network_->state_bytes() + sizeof fed_; }
  void save(uint8_t* memory) const;
  void restore(const uint8_t* memory);

 private:
  // Values between nodes grow with it: of a small model they would take more memory than the weights.
  size_t call_tokens() const;

  Source source_;
  Manifest manifest_;
  Contents data_;
  ModelRecord record_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<int64_t> call_;
  int64_t fed_ = 0;
};

}  // namespace slmc::run
