// tokenizer.json as the tokenizers library reads it: text to ids and back.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "pieces.h"
#include "vocabulary.h"

namespace slmc::run {

// How one piece becomes tokens.
class TokenModel {
 public:
  virtual ~TokenModel() = default;
  virtual void encode(std::string_view piece, std::vector<int32_t>* ids) const = 0;
};

// Raises Refusal for kinds and options that we do not know. `bytes`: tokens spell bytes as ByteLevel does. Adds the
// model's tokens to the vocabulary and finishes it.
std::unique_ptr<TokenModel> read_token_model(const JsonValue& json, bool bytes, Vocabulary* vocabulary);

// A token that the text is searched for before anything else.
struct AddedToken {
  std::string text;
  int32_t id;
  bool special, normalized, left, right, word;  // left, right: takes white space there along; word: stands alone
};

class Tokenizer {
 public:
  // Raises Refusal for what we do not read, naming it.
  explicit Tokenizer(std::string_view json);

  // `template_tokens`: with what the file says to put around a text.
  std::vector<int32_t> encode(std::string_view text, bool template_tokens) const;
  // Text of ids, special tokens left out; UTF-8 as far as the tokens spell it.
  std::string decode(const std::vector<int32_t>& ids) const;
  // The bytes of one token in a text; `first`: nothing stands before it.
  std::string piece(int32_t id, bool first) const;
  int32_t id_of(std::string_view token) const { return vocabulary_.find(token); }

 private:
  struct Cut {
    size_t begin, end;
    const AddedToken* token;  // null for what lies between
  };
  void read_added(const JsonValue& list);
  void read_template(const JsonValue& json);
  void read_decoder(const JsonValue& json);
  std::vector<Cut> cut(std::string_view text, bool normalized) const;
  const AddedToken* added_at(std::string_view text, size_t at, bool normalized) const;
  void encode_plain(std::string_view text, bool first, std::vector<int32_t>* ids) const;
  void encode_normalized(std::string text, bool first, std::vector<int32_t>* ids) const;

  std::unique_ptr<Normalizer> normalizer_;
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  std::unique_ptr<TokenModel> model_;
  Vocabulary vocabulary_;
  bool bytes_ = false;
  std::vector<AddedToken> added_;                // longest first
  std::vector<uint32_t> added_by_byte_[256];     // indices, by the first byte
  std::vector<int32_t> before_, behind_;         // what the template puts around a text
  std::vector<std::pair<std::string, std::string>> replaced_;  // the decoder's replacements
  bool byte_tokens_ = false;                     // <0x41> spells a byte
  bool strips_first_space_ = false;
  bool word_pieces_ = false;
};

// Bytes with what is no UTF-8 replaced by U+FFFD.
std::string valid_utf8(std::string_view bytes);
// How many bytes at the end begin a character that is not yet complete.
size_t unfinished_utf8(std::string_view bytes);

}  // namespace slmc::run
