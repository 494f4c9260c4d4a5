#include "tokenizer.h"

#include <algorithm>

#include "unicode.h"
#include "utf8.h"

namespace slmc::run {
namespace {

constexpr size_t kMostAdded = 1 << 16;

bool flag(const JsonValue& json, const char* name) { return !json[name].null() && json[name].boolean(); }

// Whether a word's character stands right before or at `at`.
bool word_before(std::string_view text, size_t at) {
  size_t begin = at;
  while (begin > 0 && at - begin < 4 && (static_cast<uint8_t>(text[--begin]) & 0xc0) == 0x80) {}
  return at > 0 && is_word(decode_utf8(text, begin).code);
}
bool word_at(std::string_view text, size_t at) { return at < text.size() && is_word(decode_utf8(text, at).code); }

size_t spaces_before(std::string_view text, size_t at, size_t least) {
  while (at > least) {
    size_t begin = at;
    while (begin > least && (static_cast<uint8_t>(text[--begin]) & 0xc0) == 0x80) {}
    if (!is_space(decode_utf8(text, begin).code)) break;
    at = begin;
  }
  return at;
}

size_t spaces_behind(std::string_view text, size_t at) {
  while (at < text.size() && is_space(decode_utf8(text, at).code)) at += decode_utf8(text, at).bytes;
  return at;
}

}  // namespace

Tokenizer::Tokenizer(std::string_view text) {
  const Json json(text, "tokenizer.json");
  const JsonValue root = json.root();
  normalizer_ = read_normalizer(root["normalizer"]);
  pre_tokenizer_ = read_pre_tokenizer(root["pre_tokenizer"], &bytes_);
  model_ = read_token_model(root["model"], bytes_, &vocabulary_);
  if (!root["added_tokens"].null()) read_added(root["added_tokens"]);
  if (!root["post_processor"].null()) read_template(root["post_processor"]);
  if (!root["decoder"].null()) read_decoder(root["decoder"]);
}

void Tokenizer::read_added(const JsonValue& list) {
  if (list.size() > kMostAdded) list.refuse("at most 65536 added tokens");
  list.each([&](const JsonValue& json) {
    AddedToken token{json["content"].text(), static_cast<int32_t>(json["id"].integer(0, INT32_MAX)),
                     flag(json, "special"), flag(json, "normalized"), flag(json, "lstrip"), flag(json, "rstrip"),
                     flag(json, "single_word")};
    if (token.normalized && normalizer_) token.text = normalizer_->apply(token.text);
    if (!token.text.empty()) added_.push_back(std::move(token));
  });
  std::stable_sort(added_.begin(), added_.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.text.size() > b.text.size(); });
  for (size_t i = 0; i < added_.size(); ++i)
    added_by_byte_[static_cast<uint8_t>(added_[i].text[0])].push_back(static_cast<uint32_t>(i));
}

void Tokenizer::read_template(const JsonValue& json) {
  const std::string type = json["type"].text();
  if (type == "Sequence") {
    json["processors"].each([&](const JsonValue& one) {
      if (one["type"].text() == "TemplateProcessing") read_template(one);
    });
  } else if (type == "TemplateProcessing") {
    std::vector<int32_t>* side = &before_;
    json["single"].each([&](const JsonValue& part) {
      if (part["SpecialToken"].null()) {
        side = &behind_;
        return;
      }
      const JsonValue token = json["special_tokens"][part["SpecialToken"]["id"].text().c_str()];
      token["ids"].each([&](const JsonValue& id) { side->push_back(static_cast<int32_t>(id.integer(0, INT32_MAX))); });
    });
  } else if (type != "ByteLevel") {
    throw Refusal("tokenizer.json: slmc-run does not know the post-processor " + type);
  }
}

void Tokenizer::read_decoder(const JsonValue& json) {
  const std::string type = json["type"].text();
  if (type == "Sequence") {
    json["decoders"].each([&](const JsonValue& one) {
      if (one["type"].is_text() && one["type"].text() == "Sequence") one.refuse("no decoders within decoders");
      read_decoder(one);
    });
  } else if (type == "ByteFallback") {
    byte_tokens_ = true;
  } else if (type == "Replace" && json["pattern"]["String"].is_text() && !json["pattern"]["String"].text().empty()) {
    replaced_.emplace_back(json["pattern"]["String"].text(), json["content"].text());
  } else if (type == "Strip" && json["content"].text() == " " && json["start"].integer(0, 1) == 1) {
    strips_first_space_ = true;
  } else if (type == "Metaspace") {
    replaced_.emplace_back(json["replacement"].text(), " ");
    strips_first_space_ = true;
  } else if (type == "WordPiece") {
    word_pieces_ = true;
  } else if (type != "ByteLevel" && type != "Fuse") {
    throw Refusal("tokenizer.json: slmc-run does not know the decoder " + type);
  }
}

const AddedToken* Tokenizer::added_at(std::string_view text, size_t at, bool normalized) const {
  for (const uint32_t index : added_by_byte_[static_cast<uint8_t>(text[at])]) {
    const AddedToken& token = added_[index];
    if (token.normalized != normalized || text.compare(at, token.text.size(), token.text) != 0) continue;
    if (token.word && (word_before(text, at) || word_at(text, at + token.text.size()))) continue;
    return &token;
  }
  return nullptr;
}

std::vector<Tokenizer::Cut> Tokenizer::cut(std::string_view text, bool normalized) const {
  std::vector<Cut> cuts;
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const AddedToken* token = added_.empty() ? nullptr : added_at(text, at, normalized);
    if (!token) {
      ++at;
      continue;
    }
    const size_t begin = token->left ? spaces_before(text, at, done) : at;
    size_t end = at + token->text.size();
    if (token->right) end = spaces_behind(text, end);
    if (begin > done) cuts.push_back({done, begin, nullptr});
    cuts.push_back({begin, end, token});
    done = at = end;
  }
  if (done < text.size()) cuts.push_back({done, text.size(), nullptr});
  return cuts;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool template_tokens) const {
  std::vector<int32_t> ids;
  if (template_tokens) ids = before_;
  for (const Cut& part : cut(text, false)) {
    if (part.token) ids.push_back(part.token->id);
    else encode_plain(text.substr(part.begin, part.end - part.begin), part.begin == 0, &ids);
  }
  if (template_tokens) ids.insert(ids.end(), behind_.begin(), behind_.end());
  return ids;
}

void Tokenizer::encode_plain(std::string_view text, bool first, std::vector<int32_t>* ids) const {
  const std::string whole = normalizer_ ? normalizer_->apply(text) : std::string(text);
  for (const Cut& part : cut(whole, true)) {
    if (part.token) ids->push_back(part.token->id);
    else encode_normalized(whole.substr(part.begin, part.end - part.begin), first && part.begin == 0, ids);
  }
}

void Tokenizer::encode_normalized(std::string text, bool first, std::vector<int32_t>* ids) const {
  Pieces pieces(std::move(text));
  if (pre_tokenizer_) pre_tokenizer_->split(&pieces, first);
  for (size_t i = 0; i < pieces.ranges.size(); ++i)
    if (!pieces[i].empty()) model_->encode(pieces[i], ids);
}

std::string Tokenizer::piece(int32_t id, bool first) const {
  for (const AddedToken& token : added_)
    if (token.id == id) return token.special ? std::string() : token.text;
  std::string text(vocabulary_.token(id));
  if (bytes_) return text;
  if (byte_tokens_ && text.size() == 6 && text.compare(0, 3, "<0x") == 0 && text[5] == '>')
    return std::string(1, static_cast<char>(std::strtol(text.substr(3, 2).c_str(), nullptr, 16)));
  if (word_pieces_) return text.compare(0, 2, "##") == 0 ? text.substr(2) : first ? text : " " + text;
  for (const auto& [from, to] : replaced_)
    for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
      text.replace(at, from.size(), to);
  if (first && strips_first_space_ && !text.empty() && text[0] == ' ') text.erase(0, 1);
  return text;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
  std::string bytes;
  for (const int32_t id : ids) bytes += piece(id, bytes.empty());
  return valid_utf8(bytes);
}

std::string valid_utf8(std::string_view bytes) {
  std::string out;
  for (size_t at = 0; at < bytes.size();) {
    const Decoded found = decode_utf8(bytes, at);
    if (found.valid) out.append(bytes.substr(at, found.bytes));
    else append_utf8(&out, kReplacement);
    at += found.bytes;
  }
  return out;
}

size_t unfinished_utf8(std::string_view bytes) {
  for (size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
    const auto byte = static_cast<uint8_t>(bytes[bytes.size() - back]);
    if ((byte & 0xc0) == 0x80) continue;
    const Decoded found = decode_utf8(bytes, bytes.size() - back);
    return !found.valid && found.bytes == back && byte >= 0xc2 && byte <= 0xf4 ? back : 0;
  }
  return 0;
}

}  // namespace slmc::run
