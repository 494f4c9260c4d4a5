// Token models beside BPE and WordPiece, and what all of them share.
#pragma once
#include <memory>
#include <string>

#include "json.h"
#include "tokenizer.h"

namespace slmc::run {

std::unique_ptr<TokenModel> read_unigram(const JsonValue& json, bool bytes, Vocabulary* vocabulary);
std::unique_ptr<TokenModel> read_word_level(const JsonValue& json, const Vocabulary& vocabulary);

// The token that stands for a byte: <0x0A>.
std::string byte_token(uint8_t byte);
// What a token of ByteLevel's characters spells; other tokens as they are.
std::string bytes_of(std::string_view token);

}  // namespace slmc::run
