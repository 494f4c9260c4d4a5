#include "manifest.h"

#include "json.h"
#include "sha256.h"

namespace slmc::run {
namespace {

constexpr uint64_t kMostFileBytes = uint64_t{1} << 40;
constexpr int kSchemaVersion = 1;

std::vector<int32_t> token_ids(const JsonValue& list) {
  std::vector<int32_t> ids;
  list.each([&](const JsonValue& id) { ids.push_back(static_cast<int32_t>(id.integer(0, INT32_MAX))); });
  return ids;
}

std::vector<std::string> texts(const JsonValue& list) {
  std::vector<std::string> found;
  if (!list.null()) list.each([&](const JsonValue& text) { found.push_back(text.text()); });
  return found;
}

StateRecord read_state(const JsonValue& json) {
  StateRecord state;
  state.input = json["input"].text();
  state.output = json["output"].text();
  json["shape"].each([&](const JsonValue& size) {
    if (state.shape.rank == kMaxRank) size.refuse("at most 8 sizes");
    state.shape.dims[state.shape.rank++] = size.integer(0, int64_t{1} << 40);
  });
  const std::string dtype = json["dtype"].text();
  state.type = dtype == "float32"   ? kFloat
               : dtype == "float16" ? kFloat16
               : dtype == "int8"    ? kInt8
               : dtype == "int64"   ? kInt64
                                    : 0;
  if (!state.type) json["dtype"].refuse("float32, float16, int8 or int64");
  state.fill = json["fill"].number();
  if (state.type == kFloat16) json["fill"].integer(0, 0);
  else if (state.type != kFloat) json["fill"].integer(-128, 127);
  state.in_place = !json["in_place"].null() && json["in_place"].boolean();
  return state;
}

ChatRules read_chat(const JsonValue& json) {
  ChatRules chat;
  chat.user = texts(json["user"]);
  chat.system = texts(json["system"]);
  chat.following = texts(json["following"]);
  if ((!chat.user.empty() && chat.user.size() != 2) || (!chat.system.empty() && chat.system.size() != 3) ||
      (!chat.following.empty() && chat.following.size() != 2))
    json.refuse("pieces of a conversation");
  chat.end = token_ids(json["end"]);
  chat.trim = json["trim"].boolean();
  if (!json["refusal"].null()) chat.refusal = json["refusal"].text();
  return chat;
}

TextRules read_rules(const JsonValue& json) {
  TextRules rules;
  rules.begin = token_ids(json["begin"]);
  rules.end = token_ids(json["end"]);
  rules.stop = texts(json["stop"]);
  rules.start = static_cast<int32_t>(json["start"].integer(0, INT32_MAX));
  rules.has_chat = !json["chat"].null();
  if (rules.has_chat) rules.chat = read_chat(json["chat"]);
  return rules;
}

// Whether a name stays inside the folder.
bool confined(const std::string& name) {
  if (name.empty() || name[0] == '/' || name.find('\\') != std::string::npos || name.find('\0') != std::string::npos)
    return false;
  const std::string closed = "/" + name + "/";
  return closed.find("/../") == std::string::npos;
}

}  // namespace

Manifest parse_manifest(std::string_view text) {
  const Json json(text, "manifest.json");
  const JsonValue root = json.root(), io = root["io"];
  root["schema_version"].integer(kSchemaVersion, kSchemaVersion);
  Manifest manifest;
  manifest.io.tokens = io["tokens"].text();
  manifest.io.logits = io["logits"].text();
  if (!io["logits_from"].null()) manifest.io.logits_from = io["logits_from"].text();
  io["states"].each([&](const JsonValue& state) { manifest.io.states.push_back(read_state(state)); });
  if (!io["context"].null()) manifest.context = io["context"].integer(1, int64_t{1} << 40);
  if (!io["classes"].null()) {
    manifest.labels = texts(io["classes"]["labels"]);
    if (manifest.labels.empty()) io["classes"]["labels"].refuse("names of classes");
    manifest.vocabulary = io["classes"]["vocabulary"].integer(1, INT32_MAX);
    manifest.whole_texts = !io["classes"]["whole_texts"].null() && io["classes"]["whole_texts"].boolean();
  }
  if (!root["slmc_run"].null() && !root["slmc_run"]["tokenizer"].null())
    manifest.token_ids_only = root["slmc_run"]["tokenizer"].text();
  manifest.has_rules = !root["text"].null();
  if (manifest.has_rules) manifest.rules = read_rules(root["text"]);
  root["files"].members([&](const std::string& name, const JsonValue& entry) {
    if (!confined(name)) throw Refusal("manifest.json: a file name leaves the artifact");
    const auto bytes = static_cast<uint64_t>(entry["bytes"].integer(0, int64_t{1} << 50));
    manifest.files[name] = {bytes, entry["sha256"].text()};
  });
  return manifest;
}

void check_file(const Source& source, const Manifest& manifest, const std::string& name, bool contents) {
  const auto entry = manifest.files.find(name);
  if (entry == manifest.files.end()) throw Refusal("manifest.json: it does not list " + name);
  const Contents file = source.open(name, kMostFileBytes);
  const Span bytes = file.bytes();
  if (bytes.size != entry->second.bytes)
    throw Refusal(source.path(name) + ": " + std::to_string(bytes.size) + " bytes, the manifest says " +
                  std::to_string(entry->second.bytes) + "; copy the artifact again");
  if (contents && sha256(bytes) != entry->second.sha256)
    throw Refusal(source.path(name) + ": the contents differ from the manifest's SHA-256; copy the artifact again");
}

size_t check_files(const Source& source, const Manifest& manifest) {
  for (const auto& [name, entry] : manifest.files) check_file(source, manifest, name, true);
  return manifest.files.size();
}

}  // namespace slmc::run
