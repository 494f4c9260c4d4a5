#include "generation.h"

#include <time.h>

#include <algorithm>
#include <cmath>

#include "utf8.h"

namespace slmc::run {
namespace {

constexpr float kColdest = 1e-5f;

// How many bytes at the end of the text may be the beginning of a stop string.
size_t begun(const std::string& text, const std::vector<std::string>& stops) {
  size_t most = 0;
  for (const std::string& stop : stops)
    for (size_t n = std::min(stop.size() - 1, text.size()); n > most; --n)
      if (text.compare(text.size() - n, n, stop, 0, n) == 0) most = n;
  return most;
}

// Hands text on in whole characters, and holds back what may become a stop string.
class Writer {
 public:
  explicit Writer(const Request& request) : request_(request), first_(request.tokenizer && shown_nothing()) {}

  // False where a stop string came or the caller has enough.
  bool add(int32_t token, Ended* ended) {
    if (!request_.tokenizer) return true;
    const std::string piece = request_.tokenizer->piece(token, first_);
    first_ = first_ && piece.empty();
    bytes_ += piece;
    const size_t whole = bytes_.size() - unfinished_utf8(bytes_);
    held_ += valid_utf8(std::string_view(bytes_).substr(0, whole));
    bytes_.erase(0, whole);
    size_t at = std::string::npos;
    for (const std::string& stop : request_.stop) at = std::min(at, held_.find(stop));
    if (at != std::string::npos) {
      *ended = Ended::kStop;
      held_.resize(at);
      bytes_.clear();
      return false;
    }
    return flush(held_.size() - begun(held_, request_.stop), ended);
  }

  void finish() {
    Ended ignored;
    held_ += valid_utf8(bytes_);
    flush(held_.size(), &ignored);
  }

 private:
  bool shown_nothing() const { return request_.tokenizer->decode(request_.prompt).empty(); }
  bool flush(size_t ready, Ended* ended) {
    const bool more = ready == 0 || request_.text(std::string_view(held_).substr(0, ready));
    held_.erase(0, ready);
    if (!more) *ended = Ended::kCaller;
    return more;
  }

  const Request& request_;
  bool first_;
  std::string bytes_, held_;
};

}  // namespace

double now_seconds() {
  timespec time = {};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

size_t largest(const float* values, size_t count) {
  size_t best = 0;
  for (size_t i = 1; i < count; ++i)
    if (values[i] > values[best]) best = i;
  return best;
}

// SplitMix64 (Steele, Lea and Flood 2014): 53 bits of its next number.
double Sampler::uniform() {
  uint64_t z = state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return static_cast<double>((z ^ z >> 31) >> 11) * 0x1p-53;
}

int32_t Sampler::pick(const float* logits, size_t count) {
  const size_t best = largest(logits, count);
  if (!std::isfinite(logits[best])) throw Refusal("the model gives no finite numbers; copy the artifact again, or build it anew");
  if (sampling_.temperature < kColdest) return static_cast<int32_t>(best);
  best_.clear();
  for (size_t i = 0; i < count; ++i) best_.emplace_back(logits[i], static_cast<int32_t>(i));
  const auto before = [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; };
  const size_t wanted = sampling_.top_k > 0 ? static_cast<size_t>(sampling_.top_k) : count, kept = std::min(count, wanted);
  if (kept < count) std::nth_element(best_.begin(), best_.begin() + static_cast<ptrdiff_t>(kept) - 1, best_.end(), before);
  best_.resize(kept);
  std::sort(best_.begin(), best_.end(), before);
  shares_.clear();
  double total = 0;
  for (const auto& [logit, token] : best_)
    total += shares_.emplace_back(std::exp((static_cast<double>(logit) - best_[0].first) / sampling_.temperature));
  double limit = 0;  // of the shares that top_p keeps: as few as reach it
  size_t last = 0;
  while (last < kept && (last == 0 || limit < sampling_.top_p * total)) limit += shares_[last++];
  const double drawn = uniform() * limit;
  double sum = 0;
  for (size_t i = 0; i < last; ++i)
    if ((sum += shares_[i]) > drawn) return best_[i].second;
  return best_[last - 1].second;
}

Figures generate(Artifact* artifact, const Request& request) {
  Figures figures;
  Sampler sampler(request.sampling);
  Writer writer(request);
  const double began = now_seconds();
  if (request.tokens) artifact->feed(request.prompt.data(), request.prompt.size());
  const double read = now_seconds();
  figures.prompt_seconds = read - began;
  const auto limit = static_cast<size_t>(std::min<int64_t>(static_cast<int64_t>(request.tokens), artifact->room()));
  figures.ended = limit == request.tokens ? Ended::kTokens : Ended::kContext;
  while (figures.tokens < limit) {
    const int32_t token = sampler.pick(artifact->logits(), artifact->logit_count());
    if (std::find(request.end.begin(), request.end.end(), token) != request.end.end()) {
      figures.ended = Ended::kEnd;
      break;
    }
    ++figures.tokens;
    if (request.token && !request.token(token)) {
      figures.ended = Ended::kCaller;
      break;
    }
    if (!writer.add(token, &figures.ended)) break;
    if (figures.tokens == limit) break;
    artifact->feed(&token, 1);
    ++figures.steps;
  }
  if (request.tokenizer && figures.ended != Ended::kCaller) writer.finish();
  figures.seconds = now_seconds() - read;
  return figures;
}

std::string chat_text(const TextRules& rules, std::string question, const std::string* system) {
  if (!rules.has_chat) throw Refusal("--chat: this model has no chat template; leave it out and give a text to go on from");
  const ChatRules& chat = rules.chat;
  if (chat.user.empty()) throw Refusal("--chat: not without a template engine (" + chat.refusal + ")");
  const auto trimmed = [&](const std::string& text) {
    if (!chat.trim) return text;
    const char* white = " \t\n\r\f\v";
    const size_t first = text.find_first_not_of(white);
    return first == std::string::npos ? std::string() : text.substr(first, text.find_last_not_of(white) - first + 1);
  };
  question = trimmed(question);
  if (!system) return chat.user[0] + question + chat.user[1];
  if (chat.system.empty()) throw Refusal("--system: the model's chat template has no place for a system message; leave it out");
  return chat.system[0] + trimmed(*system) + chat.system[1] + question + chat.system[2];
}

}  // namespace slmc::run
