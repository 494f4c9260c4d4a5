// Altered artifacts, for sanitizers: every file of one is read in many altered forms, each of which has to be served or
// refused.
//
//     slmc-run-fuzz ARTIFACT COUNT SEED [FOLDER]    the mutant that is being read lies in FOLDER while it is
#include <cstdio>
#include <cstdlib>
#include <iterator>

#include "artifact.h"

namespace {

using namespace slmc;
using namespace slmc::run;

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t below(uint64_t limit) {  // SplitMix64
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return limit ? (z ^ z >> 31) % limit : 0;
  }

 private:
  uint64_t state_;
};

std::string read_file(const std::string& path) {
  const MappedFile file(path, 1 << 30);
  return std::string(file.text());
}

// One alteration of a few bytes: a bit, a byte, a number, a piece left out, doubled or moved.
void alter(std::string* data, Random* random) {
  const size_t size = data->size(), at = random->below(size), length = 1 + random->below(16);
  static constexpr const char* kNumbers[] = {"-1", "0", "1e999", "9223372036854775807", "null", "\"\"", "[]", "{}", "[[[[", "\\ud800"};
  switch (random->below(8)) {
    case 0: (*data)[at] = static_cast<char>((*data)[at] ^ 1 << random->below(8)); break;
    case 1: (*data)[at] = static_cast<char>(random->below(256)); break;
    case 2: data->erase(at, length); break;
    case 3: data->insert(at, data->substr(random->below(size), length)); break;
    case 4: data->replace(at, length, data->substr(random->below(size), length)); break;
    case 5: data->resize(at); break;
    case 6: data->replace(at, 1, kNumbers[random->below(std::size(kNumbers))]); break;
    default: (*data)[at] = random->below(2) ? '\xff' : '\x7f';
  }
}

struct Files {
  std::string manifest, graph, data, tokenizer;
};

void read_all(const Files& files) {
  const Manifest manifest = parse_manifest(files.manifest);
  if (!files.tokenizer.empty()) {
    const Tokenizer tokenizer(files.tokenizer);
    tokenizer.decode(tokenizer.encode("The ship, 12 \xc3\xa9\xe6\x97\xa5 \xff\n  <|endoftext|>", true));
  }
  const auto span = [](const std::string& text) { return Span{reinterpret_cast<const uint8_t*>(text.data()), text.size()}; };
  const ModelRecord record = read_model(span(files.graph), span(files.data), "model.onnx.data");
  Network network(record, manifest.io, 1);
  const int64_t tokens[] = {1, 2, 3, 5};
  network.run(tokens, 3, false);
  if (!manifest.whole_texts) network.run(tokens + 3, 1, true);
  std::vector<uint8_t> saved(network.state_bytes());
  network.save(saved.data());
  network.restore(saved.data());
}

void write_file(const std::string& path, const std::string& data) {
  if (std::FILE* file = std::fopen(path.c_str(), "wb")) {
    std::fwrite(data.data(), 1, data.size(), file);
    std::fclose(file);
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 4) return 2;
  const std::string folder = arguments[1], kept = count > 4 ? arguments[4] : "";
  Files whole{read_file(folder + "/manifest.json"), read_file(folder + "/model.onnx"), read_file(folder + "/model.onnx.data"), ""};
  if (std::FILE* file = std::fopen((folder + "/tokenizer.json").c_str(), "rb")) {
    std::fclose(file);
    whole.tokenizer = read_file(folder + "/tokenizer.json");
  }
  read_all(whole);  // as it is, it has to be served
  Random random(std::strtoull(arguments[3], nullptr, 10));
  size_t served = 0, refused = 0;
  for (long left = std::atol(arguments[2]); left > 0; --left) {
    Files files = whole;
    std::string* targets[] = {&files.manifest, &files.graph, &files.graph, &files.data, &files.tokenizer};
    std::string* target = targets[random.below(std::size(targets))];
    for (uint64_t alterations = 1 + random.below(3); alterations > 0 && !target->empty(); --alterations) alter(target, &random);
    if (!kept.empty()) {
      write_file(kept + "/manifest.json", files.manifest);
      write_file(kept + "/model.onnx", files.graph);
      write_file(kept + "/tokenizer.json", files.tokenizer);
      write_file(kept + "/model.onnx.data", files.data);
    }
    try {
      read_all(files);
      ++served;
    } catch (const std::exception& error) {
      ++refused;
    }
  }
  std::printf("%zu served, %zu refused\n", served, refused);
}
