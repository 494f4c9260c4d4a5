// How a piece becomes tokens: byte pair encoding, and the longest word pieces.
#include <algorithm>
#include <queue>

#include "prefixes.h"
#include "tokenizer.h"
#include "unigram.h"
#include "utf8.h"

namespace slmc::run {
namespace {

// ByteLevel's character of a byte, back to the byte: printable ones are themselves, the others follow from U+0100 on.
int32_t byte_of_character(uint32_t code) {
  const auto printable = [](uint32_t c) { return (c >= '!' && c <= '~') || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff); };
  if (code < 256) return printable(code) ? static_cast<int32_t>(code) : -1;
  uint32_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte)
    if (!printable(byte) && next++ == code) return static_cast<int32_t>(byte);
  return -1;
}

// Merges of two tokens by their ids: rank, and what they become.
class Merges {
 public:
  struct Merge {
    uint64_t pair = UINT64_MAX;
    int32_t rank = 0, token = kNoToken;
  };
  void reserve(size_t count) {
    size_t slots = 16;
    while (slots < count * 2) slots *= 2;
    slots_.resize(slots);
  }
  void add(int32_t a, int32_t b, int32_t rank, int32_t token) {
    Merge& slot = slots_[place(a, b)];
    slot = {key(a, b), rank, token};  // the last of several merges of one pair counts
  }
  const Merge* find(int32_t a, int32_t b) const {
    const Merge& slot = slots_[place(a, b)];
    return slot.token == kNoToken ? nullptr : &slot;
  }

 private:
  static uint64_t key(int32_t a, int32_t b) { return static_cast<uint64_t>(static_cast<uint32_t>(a)) << 32 | static_cast<uint32_t>(b); }
  size_t place(int32_t a, int32_t b) const {
    const uint64_t wanted = key(a, b);
    size_t at = (wanted * 0x9e3779b97f4a7c15u >> 20) & (slots_.size() - 1);
    while (slots_[at].token != kNoToken && slots_[at].pair != wanted) at = (at + 1) & (slots_.size() - 1);
    return at;
  }
  std::vector<Merge> slots_;
};

class Bpe final : public TokenModel {
 public:
  Bpe(const JsonValue& json, bool bytes, Vocabulary* vocabulary) : vocabulary_(*vocabulary), bytes_(bytes) {
    for (const char* name : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
      const JsonValue option = json[name];
      const bool unset = option.null() || (option.is_text() && option.text().empty()) ||
                         (option.is_number() && option.number() == 0);
      if (!unset) throw Refusal(std::string("tokenizer.json: slmc-run does not know BPE with ") + name);
    }
    const auto flag = [&](const char* name) { return !json[name].null() && json[name].boolean(); };
    fuses_unknown_ = flag("fuse_unk"), byte_tokens_ = flag("byte_fallback"), whole_first_ = flag("ignore_merges");
    if (!json["unk_token"].null()) unknown_ = vocabulary_.find(json["unk_token"].text());
    for (int i = 0; i < 256; ++i) {
      const auto byte = static_cast<uint8_t>(i);
      const char character = static_cast<char>(byte);
      byte_ids_[i] = vocabulary_.find(bytes ? std::string(1, character) : byte_token(byte));
      all_bytes_ = all_bytes_ && byte_ids_[i] != kNoToken;
    }
    read_merges(json["merges"]);
  }

  void encode(std::string_view piece, std::vector<int32_t>* ids) const override {
    if (whole_first_) {
      const int32_t whole = vocabulary_.find(piece);
      if (whole != kNoToken) return ids->push_back(whole);
    }
    std::vector<int32_t> symbols = this->symbols(piece);
    if (symbols.size() < kShort) merge_short(&symbols);
    else merge_long(&symbols);
    ids->insert(ids->end(), symbols.begin(), symbols.end());
  }

 private:
  static constexpr size_t kShort = 64;

  void read_merges(const JsonValue& list) {
    merges_.reserve(list.size());
    int32_t rank = 0;
    list.each([&](const JsonValue& merge) {
      std::string a, b;
      if (merge.is_text()) {
        const std::string both = merge.text();
        const size_t space = both.find(' ');
        if (space == std::string::npos) merge.refuse("two tokens");
        a = both.substr(0, space), b = both.substr(space + 1);
      } else {
        size_t place = 0;
        merge.each([&](const JsonValue& one) { (place++ ? b : a) = one.text(); });
        if (place != 2) merge.refuse("two tokens");
      }
      if (bytes_) a = bytes_of(a), b = bytes_of(b);
      const int32_t first = vocabulary_.find(a), second = vocabulary_.find(b), both = vocabulary_.find(a + b);
      if (first == kNoToken || second == kNoToken || both == kNoToken) throw Refusal("tokenizer.json: a merge of tokens that it does not have");
      merges_.add(first, second, rank++, both);
    });
  }

 private:
  std::vector<int32_t> symbols(std::string_view piece) const {
    std::vector<int32_t> symbols;
    symbols.reserve(piece.size());
    if (bytes_) {
      for (const char c : piece) {
        const int32_t id = byte_ids_[static_cast<uint8_t>(c)];
        if (id != kNoToken) symbols.push_back(id);
        else if (unknown_ != kNoToken) add_unknown(&symbols);
      }
      return symbols;
    }
    for (size_t at = 0; at < piece.size();) {
      const Decoded c = decode_utf8(piece, at);
      const int32_t id = vocabulary_.find(piece.substr(at, c.bytes));
      if (id != kNoToken) symbols.push_back(id);
      else if (byte_tokens_ && all_bytes_)
        for (uint32_t i = 0; i < c.bytes; ++i) symbols.push_back(byte_ids_[static_cast<uint8_t>(piece[at + i])]);
      else if (unknown_ != kNoToken) add_unknown(&symbols);
      at += c.bytes;
    }
    return symbols;
  }

  void add_unknown(std::vector<int32_t>* symbols) const {
    if (!fuses_unknown_ || symbols->empty() || symbols->back() != unknown_) symbols->push_back(unknown_);
  }

  void merge_short(std::vector<int32_t>* symbols) const {
    std::vector<int32_t>& s = *symbols;
    while (s.size() > 1) {
      const Merges::Merge* best = nullptr;
      size_t place = 0;
      for (size_t i = 0; i + 1 < s.size(); ++i) {
        const Merges::Merge* found = merges_.find(s[i], s[i + 1]);
        if (found && (!best || found->rank < best->rank)) best = found, place = i;
      }
      if (!best) return;
      s[place] = best->token;
      s.erase(s.begin() + static_cast<ptrdiff_t>(place) + 1);
    }
  }

  // The same by a queue of merges, which may be stale: a candidate counts if its pair still stands there.
  void merge_long(std::vector<int32_t>* symbols) const {
    struct Candidate {
      int32_t rank, a, b;
      size_t place;
      bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : place > other.place; }
    };
    std::vector<int32_t>& s = *symbols;
    const size_t count = s.size();
    std::vector<size_t> before(count), behind(count);
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
    const auto offer = [&](size_t i) {
      if (i >= count || behind[i] >= count) return;
      const Merges::Merge* found = merges_.find(s[i], s[behind[i]]);
      if (found) queue.push({found->rank, s[i], s[behind[i]], i});
    };
    for (size_t i = 0; i < count; ++i) before[i] = i - 1, behind[i] = i + 1;
    for (size_t i = 0; i + 1 < count; ++i) offer(i);
    while (!queue.empty()) {
      const Candidate next = queue.top();
      queue.pop();
      const size_t i = next.place, j = s[i] == next.a ? behind[i] : count;
      if (j >= count || s[j] != next.b) continue;
      s[i] = merges_.find(next.a, next.b)->token;
      s[j] = kNoToken;
      behind[i] = behind[j];
      if (behind[j] < count) before[behind[j]] = i;
      offer(i);
      if (i > 0) offer(before[i]);
    }
    s.erase(std::remove(s.begin(), s.end(), kNoToken), s.end());
  }

  const Vocabulary& vocabulary_;
  bool bytes_, fuses_unknown_ = false, byte_tokens_ = false, whole_first_ = false, all_bytes_ = true;
  int32_t unknown_ = kNoToken;
  int32_t byte_ids_[256];
  Merges merges_;
};

class WordPiece final : public TokenModel {
 public:
  WordPiece(const JsonValue& json, bool bytes, const Vocabulary& vocabulary)
      : bytes_(bytes), unknown_(vocabulary.find(json["unk_token"].text())),
        longest_(static_cast<size_t>(json["max_input_chars_per_word"].integer(1, INT32_MAX))), prefixes_(vocabulary),
        within_(prefixes_.within(prefixes_.all(), json["continuing_subword_prefix"].text())) {
    if (unknown_ == kNoToken) throw Refusal("tokenizer.json: its unknown token is not in the vocabulary");
  }

  void encode(std::string_view piece, std::vector<int32_t>* ids) const override {
    const size_t before = ids->size();
    size_t characters = bytes_ ? piece.size() : 0;
    for (size_t at = 0; !bytes_ && at < piece.size(); at += decode_utf8(piece, at).bytes) ++characters;
    bool known = characters <= longest_;
    for (size_t at = 0; known && at < piece.size();) {
      int32_t longest = kNoToken;
      size_t end = at;
      prefixes_.each(at ? within_ : prefixes_.all(), piece.substr(at), [&](size_t length, int32_t id) {
        longest = id;
        end = at + length;
      });
      known = longest != kNoToken;
      if (known) ids->push_back(longest);
      at = end;
    }
    if (known) return;
    ids->resize(before);
    ids->push_back(unknown_);
  }

 private:
  bool bytes_;
  int32_t unknown_;
  size_t longest_;
  Prefixes prefixes_;
  Prefixes::Place within_;
};

}  // namespace

std::string byte_token(uint8_t byte) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  return std::string("<0x") + kDigits[byte >> 4] + kDigits[byte & 15] + ">";
}

std::string bytes_of(std::string_view token) {
  std::string out;
  for (size_t at = 0; at < token.size();) {
    const Decoded c = decode_utf8(token, at);
    const int32_t byte = c.valid ? byte_of_character(c.code) : -1;
    if (byte < 0) return std::string(token);
    out.push_back(static_cast<char>(byte));
    at += c.bytes;
  }
  return out;
}

std::unique_ptr<TokenModel> read_token_model(const JsonValue& json, bool bytes, Vocabulary* vocabulary) {
  const std::string type = json["type"].null() ? "BPE" : json["type"].text();
  if (type == "Unigram") return read_unigram(json, bytes, vocabulary);
  if (type != "BPE" && type != "WordPiece" && type != "WordLevel")
    throw Refusal("tokenizer.json: slmc-run does not know the model " + type);
  json["vocab"].members([&](const std::string& token, const JsonValue& id) {
    vocabulary->add(bytes ? bytes_of(token) : token, static_cast<int32_t>(id.integer(0, INT32_MAX)));
  });
  vocabulary->finish();
  if (type == "WordPiece") return std::make_unique<WordPiece>(json, bytes, *vocabulary);
  if (type == "WordLevel") return read_word_level(json, *vocabulary);
  return std::make_unique<Bpe>(json, bytes, vocabulary);
}

}  // namespace slmc::run
