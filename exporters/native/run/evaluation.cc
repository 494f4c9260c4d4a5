// What a model predicts for given token ids; the C++ reading of targets/device/evaluation.py.
#include <algorithm>
#include <cmath>

#include "generation.h"
#include "worker.h"

namespace slmc::run {
namespace {

constexpr double kWorstLoss = 700;

struct Read {
  std::vector<double> losses;
  std::vector<int32_t> best;
};

int32_t best_of(const float* logits, size_t count) { return static_cast<int32_t>(largest(logits, count)); }

double loss_of(const float* logits, size_t count, int32_t token) {
  if (token < 0 || static_cast<size_t>(token) >= count)
    throw Refusal("token " + std::to_string(token) + " is not in the vocabulary, which has " + std::to_string(count));
  const double most = logits[largest(logits, count)];
  double total = 0;
  for (size_t i = 0; i < count; ++i) total += std::exp(logits[i] - most);
  const double loss = most + std::log(total) - logits[token];
  return loss < kWorstLoss ? loss : kWorstLoss;  // also where it is no number
}

// In pieces of a context, each from empty states; what begins a piece is not predicted.
Read read_text(Artifact* artifact, const std::vector<int32_t>& ids) {
  const int64_t context = artifact->manifest().context;
  const size_t piece = context < 0 ? ids.size() : static_cast<size_t>(context);
  Read read;
  for (size_t begin = 0; begin < ids.size(); begin += piece) {
    const size_t end = std::min(ids.size(), begin + piece);
    artifact->reset();
    artifact->feed(ids.data() + begin, end - begin, [&](const Tensor& logits, size_t first) {
      const auto rows = static_cast<size_t>(logits.shape.dims[1]), width = static_cast<size_t>(logits.shape.last());
      for (size_t row = 0; row < rows; ++row) {
        const float* scores = logits.as<float>() + row * width;
        read.best.push_back(best_of(scores, width));
        const size_t next = begin + first + row + 1;
        if (next < end) read.losses.push_back(loss_of(scores, width, ids[next]));
      }
    });
  }
  return read;
}

std::vector<int32_t> one_by_one(Artifact* artifact, const int32_t* ids, size_t count) {
  std::vector<int32_t> best;
  artifact->reset();
  for (size_t i = 0; i < count; ++i) {
    artifact->feed(ids + i, 1);
    best.push_back(best_of(artifact->logits(), artifact->logit_count()));
  }
  return best;
}

// Sentences one after the other, each from an empty state; `single`: the first ones of so many tokens, token by token.
Read read_sentences(Artifact* artifact, const std::vector<int32_t>& ids, const std::vector<int32_t>& ends,
                    const std::vector<int32_t>& labels, size_t single_tokens, std::vector<int32_t>* single) {
  if (ends.empty() || ends.size() != labels.size()) throw Refusal("a classifier needs sentences and their labels");
  Read read;
  size_t begin = 0;
  for (size_t i = 0; i < ends.size(); ++i) {
    const size_t end = i + 1 < ends.size() ? static_cast<size_t>(ends[i]) : ids.size();
    if (end <= begin || end > ids.size()) throw Refusal("a sentence ends before it begins");
    artifact->reset();
    artifact->feed(ids.data() + begin, end - begin);
    read.best.push_back(best_of(artifact->logits(), artifact->logit_count()));
    read.losses.push_back(loss_of(artifact->logits(), artifact->logit_count(), labels[i]));
    const bool one_call = artifact->manifest().whole_texts;
    if (!one_call && end <= single_tokens) single->push_back(one_by_one(artifact, ids.data() + begin, end - begin).back());
    begin = end;
  }
  return read;
}

double equal_share(const std::vector<int32_t>& some, const std::vector<int32_t>& others) {
  size_t equal = 0;
  for (size_t i = 0; i < some.size(); ++i) equal += some[i] == others[i];
  return static_cast<double>(equal) / static_cast<double>(some.size());
}

}  // namespace

void evaluate(const std::string& folder, const JsonValue& request, JsonText* json) {
  const std::vector<int32_t> ids = token_list(request["tokens"]);
  if (ids.size() < 2) throw Refusal(std::to_string(ids.size()) + " tokens predict nothing; give 2 or more");
  auto single_tokens = static_cast<size_t>(request["single_tokens"].integer(0, INT32_MAX));
  Artifact artifact(folder, static_cast<int>(request["threads"].integer(1, 256)));
  const int64_t context = artifact.manifest().context;
  const bool classifies = !artifact.manifest().labels.empty();
  Read read;
  std::vector<int32_t> single, labels;
  if (classifies) {
    labels = token_list(request["labels"]);
    read = read_sentences(&artifact, ids, token_list(request["ends"]), labels, single_tokens, &single);
  } else {
    read = read_text(&artifact, ids);
    if (context >= 0) single_tokens = std::min(single_tokens, static_cast<size_t>(context));
    single = one_by_one(&artifact, ids.data(), std::min(single_tokens, ids.size()));
  }
  json->list("losses", read.losses).list("best", read.best);
  if (single.empty()) json->null("token_by_token_top1");
  else json->number("token_by_token_top1", equal_share(single, read.best));
  if (context < 0) json->null("context");
  else json->integer("context", context);
  if (classifies) json->number("accuracy", equal_share(read.best, labels));
  else json->null("accuracy");
}

}  // namespace slmc::run
