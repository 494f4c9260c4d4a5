// What a model goes on with after a prompt: sampling, decoding, stopping; as toolchain/delivery/continuation.py.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "artifact.h"

namespace slmc::run {

struct Sampling {
  float temperature = 0.7f;  // below 1e-5 the best token is taken
  int32_t top_k = 40;        // 0: all
  float top_p = 1;
  uint64_t seed = 0;
};

// Draws tokens; the same ones for the same seed on every machine, but not those that numpy draws.
class Sampler {
 public:
  explicit Sampler(const Sampling& sampling) : sampling_(sampling), state_(sampling.seed) {}
  // Raises Refusal where the logits are not finite.
  int32_t pick(const float* logits, size_t count);

 private:
  double uniform();

  Sampling sampling_;
  uint64_t state_;
  std::vector<std::pair<float, int32_t>> best_;
  std::vector<double> shares_;
};

enum class Ended { kTokens, kContext, kEnd, kStop, kCaller };

struct Request {
  std::vector<int32_t> prompt;
  size_t tokens = 128;
  Sampling sampling;
  std::vector<int32_t> end;
  std::vector<std::string> stop;
  const Tokenizer* tokenizer = nullptr;          // null: `text` is not called
  std::function<bool(std::string_view)> text;    // whole characters; false ends it
  std::function<bool(int32_t)> token;            // every token, likewise; may be null
};

struct Figures {
  Ended ended = Ended::kTokens;
  size_t tokens = 0, steps = 0;
  double prompt_seconds = 0, seconds = 0;
};

Figures generate(Artifact* artifact, const Request& request);

// The index of the largest.
size_t largest(const float* values, size_t count);

// What a conversation's first question is to the model. Raises Refusal where its template cannot be said in pieces.
std::string chat_text(const TextRules& rules, std::string question, const std::string* system);

double now_seconds();

}  // namespace slmc::run
