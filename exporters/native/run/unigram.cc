// The likeliest tokens of a piece, by their scores (Kudo 2018, "Subword Regularization", section 3; as SentencePiece).
#include "unigram.h"

#include <algorithm>
#include <limits>

#include "prefixes.h"
#include "utf8.h"

namespace slmc::run {
namespace {

constexpr double kUnknownPenalty = 10;

class Unigram final : public TokenModel {
 public:
  Unigram(const JsonValue& json, bool bytes, Vocabulary* vocabulary) : vocabulary_(*vocabulary), bytes_(bytes) {
    int32_t id = 0;
    json["vocab"].each([&](const JsonValue& entry) {
      bool first = true;
      entry.each([&](const JsonValue& part) {
        if (first) vocabulary->add(bytes ? bytes_of(part.text()) : part.text(), id);
        else scores_.push_back(part.number());
        first = false;
      });
      if (scores_.size() != static_cast<size_t>(++id)) entry.refuse("a token and its score");
    });
    vocabulary->finish();
    if (!json["unk_id"].null()) unknown_ = static_cast<int32_t>(json["unk_id"].integer(0, std::max(id - 1, 0)));
    byte_tokens_ = !json["byte_fallback"].null() && json["byte_fallback"].boolean();
    for (const double score : scores_) least_ = std::min(least_, score);
    prefixes_ = std::make_unique<Prefixes>(vocabulary_);
  }

  void encode(std::string_view piece, std::vector<int32_t>* ids) const override {
    const std::vector<Node> nodes = best_paths(piece);
    std::vector<std::pair<size_t, size_t>> parts;  // from the last to the first
    bool fusing = false;
    for (size_t end = piece.size(); end > 0; end = nodes[end].begin) {
      const bool unknown = nodes[end].token == unknown_;
      if (unknown && fusing) parts.back().first = nodes[end].begin;
      else parts.emplace_back(nodes[end].begin, end);
      fusing = unknown;
    }
    for (auto part = parts.rbegin(); part != parts.rend(); ++part)
      add(piece.substr(part->first, part->second - part->first), ids);
  }

 private:
  struct Node {
    double score = 0;
    size_t begin = SIZE_MAX;  // of the last token on the best path to here
    int32_t token = kNoToken;
    void offer(double score_, size_t begin_, int32_t token_) {
      if (begin == SIZE_MAX || score_ > score) score = score_, begin = begin_, token = token_;
    }
  };

  std::vector<Node> best_paths(std::string_view piece) const {
    std::vector<Node> nodes(piece.size() + 1);
    for (size_t at = 0; at < piece.size();) {
      const size_t character = bytes_ ? 1 : decode_utf8(piece, at).bytes;
      bool single = false;
      prefixes_->each(prefixes_->all(), piece.substr(at), [&](size_t length, int32_t token) {
        nodes[at + length].offer(scores_[static_cast<size_t>(token)] + nodes[at].score, at, token);
        single = single || length == character;
      });
      if (!single) {
        if (unknown_ == kNoToken) throw Refusal("tokenizer.json: the text has characters that are no token, and there is no unknown one");
        nodes[at + character].offer(least_ - kUnknownPenalty + nodes[at].score, at, unknown_);
      }
      at += character;
    }
    return nodes;
  }

  // A token, or the bytes of what is none.
  void add(std::string_view part, std::vector<int32_t>* ids) const {
    const int32_t token = vocabulary_.find(part);
    if (token != kNoToken) return ids->push_back(token);
    const size_t before = ids->size();
    if (byte_tokens_) {
      for (const char c : part) {
        const int32_t byte = vocabulary_.find(byte_token(static_cast<uint8_t>(c)));
        if (byte == kNoToken) break;
        ids->push_back(byte);
      }
      if (ids->size() == before + part.size()) return;
      ids->resize(before);
    }
    ids->push_back(unknown_);
  }

  const Vocabulary& vocabulary_;
  bool bytes_, byte_tokens_ = false;
  int32_t unknown_ = kNoToken;
  double least_ = std::numeric_limits<double>::infinity();
  std::vector<double> scores_;
  std::unique_ptr<Prefixes> prefixes_;
};

// A piece is a token as it stands: words, or characters.
class WordLevel final : public TokenModel {
 public:
  WordLevel(const JsonValue& json, const Vocabulary& vocabulary) : vocabulary_(vocabulary) {
    if (!json["unk_token"].null()) unknown_ = vocabulary.find(json["unk_token"].text());
  }
  void encode(std::string_view piece, std::vector<int32_t>* ids) const override {
    const int32_t token = vocabulary_.find(piece);
    if (token == kNoToken && unknown_ == kNoToken) throw Refusal("tokenizer.json: the text has a word that is no token, and there is no unknown one");
    ids->push_back(token != kNoToken ? token : unknown_);
  }

 private:
  const Vocabulary& vocabulary_;
  int32_t unknown_ = kNoToken;
};

}  // namespace

std::unique_ptr<TokenModel> read_unigram(const JsonValue& json, bool bytes, Vocabulary* vocabulary) {
  return std::make_unique<Unigram>(json, bytes, vocabulary);
}

std::unique_ptr<TokenModel> read_word_level(const JsonValue& json, const Vocabulary& vocabulary) {
  return std::make_unique<WordLevel>(json, vocabulary);
}

}  // namespace slmc::run
