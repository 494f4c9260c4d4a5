// A text while it is cut into pieces: what pre-tokenizers hand from one to the next.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "json.h"

namespace slmc::run {

struct Pieces {
  std::string text;
  struct Range {
    size_t begin, end;
  };
  std::vector<Range> ranges;

  explicit Pieces(std::string whole) : text(std::move(whole)), ranges{{0, text.size()}} {}
  std::string_view operator[](size_t i) const {
    return std::string_view(text).substr(ranges[i].begin, ranges[i].end - ranges[i].begin);
  }
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // `first`: the pieces begin the text, nothing of which was cut off before as an added token.
  virtual void split(Pieces* pieces, bool first) const = 0;
};

// The pre-tokenizer of tokenizer.json, null where there is none; `bytes` becomes true where it makes bytes of
// characters. Raises Refusal for kinds and patterns that we do not know.
std::unique_ptr<PreTokenizer> read_pre_tokenizer(const JsonValue& json, bool* bytes);

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  virtual std::string apply(std::string_view text) const = 0;
};

// Likewise the normalizer.
std::unique_ptr<Normalizer> read_normalizer(const JsonValue& json);

}  // namespace slmc::run
