// What a runtime needs of manifest.json (exporters/artifact/manifest.py, exporters/artifact/text_rules.py).
#pragma once
#include <map>
#include <string>
#include <vector>

#include "network.h"
#include "source.h"

namespace slmc::run {

struct FileRecord {
  uint64_t bytes = 0;
  std::string sha256;
};

// A conversation in pieces; see text_rules.py.
struct ChatRules {
  std::vector<std::string> user, system, following;  // empty where the template has none
  std::vector<int32_t> end;
  bool trim = false;
  std::string refusal;
};

struct TextRules {
  std::vector<int32_t> begin, end;
  std::vector<std::string> stop;
  int32_t start = 0;
  bool has_chat = false;
  ChatRules chat;
};

struct Manifest {
  IoRecord io;
  int64_t context = -1;              // the most tokens of one text; -1 without a limit
  std::vector<std::string> labels;   // of a classifier
  bool whole_texts = false;
  int64_t vocabulary = 0;            // likewise
  std::string token_ids_only;        // why text goes in and out as token ids, empty where it need not
  bool has_rules = false;
  TextRules rules;
  std::map<std::string, FileRecord> files;
};

// Raises Refusal for what is not a manifest of ours.
Manifest parse_manifest(std::string_view text);

// Raises Refusal unless a file of the artifact is there with the manifest's size and, if `contents`, its SHA-256.
void check_file(const Source& source, const Manifest& manifest, const std::string& name, bool contents);

// Checks every file that the manifest lists; returns how many.
size_t check_files(const Source& source, const Manifest& manifest);

}  // namespace slmc::run
