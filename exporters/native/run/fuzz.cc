// Altered artifacts, for sanitizers: every file of one is read in many altered forms, each of which has to be served or
// refused, within seconds.
//
//     slmc-run-fuzz ARTIFACT COUNT SEED [FOLDER]    FOLDER gets the altered file while it is read, and one of every refusal
//     slmc-run-fuzz ARTIFACT --replay FILE...       each in the place of the file that its name ends with; a line each
#include <sys/time.h>

#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <new>
#include <set>

#include "artifact.h"
#include "utf8.h"

// Sizes that an altered file asks for are refused here as a small device refuses them, and never touched.
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  constexpr size_t kMostBytes = size_t{1} << 28;
  return size > kMostBytes ? nullptr : std::malloc(size ? size : 1);
}
void* operator new(size_t size) {
  if (void* memory = operator new(size, std::nothrow)) return memory;
  throw std::bad_alloc();
}
void* operator new[](size_t size) { return operator new(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

namespace {

using namespace slmc;
using namespace slmc::run;

constexpr int kMostSeconds = 20;  // of processor time for one altered file

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

constexpr size_t kFiles = 4;
constexpr const char* kNames[kFiles] = {"manifest.json", "model.onnx", "model.onnx.data", "tokenizer.json"};
struct Files {
  std::string of[kFiles];
};

void read_tokenizer(const std::string& text) {
  const Tokenizer tokenizer(text);
  tokenizer.decode(tokenizer.encode("The ship, 12 \xc3\xa9\xe6\x97\xa5 \xff\n  <|endoftext|>", true));
}

void read_network(const Files& files) {
  const Manifest manifest = parse_manifest(files.of[0]);
  const auto span = [](const std::string& text) { return Span{reinterpret_cast<const uint8_t*>(text.data()), text.size()}; };
  const ModelRecord record = read_model(span(files.of[1]), span(files.of[2]), kNames[2]);
  Network network(record, manifest.io, 1);
  const int64_t tokens[] = {1, 2, 3, 5};
  network.run(tokens, 3, Network::Asked::kNone);
  if (!manifest.whole_texts) network.run(tokens + 3, 1, Network::Asked::kLast);
  std::vector<uint8_t> saved(network.state_bytes());
  network.save(saved.data());
  network.restore(saved.data());
}

// What the file of that number is part of; returns why it is refused, empty where it is served.
std::string read(const Files& files, size_t altered) {
  const itimerval limit = {{0, 0}, {kMostSeconds, 0}};
  setitimer(ITIMER_PROF, &limit, nullptr);  // a hang ends the process
  try {
    if (altered == 3) read_tokenizer(files.of[3]);
    else read_network(files);
  } catch (const std::exception& error) {
    return *error.what() ? error.what() : "an error without a text";
  }
  return "";
}

void write_file(const std::string& path, const std::string& data) {
  if (std::FILE* file = std::fopen(path.c_str(), "wb")) {
    std::fwrite(data.data(), 1, data.size(), file);
    std::fclose(file);
  }
}

// A refusal without what it found: its letters alone.
std::string kind_of(const std::string& refusal) {
  std::string kind;
  bool quoted = false;
  for (const char c : refusal) {
    if (c == '\'') quoted = !quoted;
    if (!quoted && ((c >= 'a' && c <= 'z') || c == ' ')) kind += c;
  }
  return kind;
}

Files read_files(const std::string& folder) {
  Files files;
  for (size_t i = 0; i < kFiles; ++i) {
    const std::string path = folder + "/" + kNames[i];
    std::FILE* there = std::fopen(path.c_str(), "rb");
    if (there) std::fclose(there);
    if (there || i != 3) files.of[i] = read_file(path);
  }
  return files;
}

int replay(const Files& whole, int count, char** paths) {
  for (int i = 0; i < count; ++i) {
    const std::string path = paths[i];
    Files files = whole;
    size_t altered = kFiles;
    for (size_t k = 0; k < kFiles; ++k)
      if (path.size() >= std::string(kNames[k]).size() &&
          path.compare(path.size() - std::string(kNames[k]).size(), std::string::npos, kNames[k]) == 0)
        altered = k;
    if (altered == kFiles) return 2;
    files.of[altered] = read_file(path);
    const std::string refusal = read(files, altered);
    std::printf("%s\n", refusal.empty() ? "served" : one_line(refusal).c_str());
  }
  return 0;
}

int attack(const Files& whole, long count, uint64_t seed, const std::string& kept) {
  static constexpr size_t kTargets[] = {0, 1, 1, 2, 3};
  Random random(seed);
  std::set<std::string> kinds;
  size_t served = 0, refused = 0;
  for (long left = count; left > 0; --left) {
    Files files = whole;
    const size_t altered = kTargets[random.below(std::size(kTargets))];
    std::string* target = &files.of[altered];
    for (uint64_t alterations = 1 + random.below(3); alterations > 0 && !target->empty(); --alterations) alter(target, &random);
    if (!kept.empty()) write_file(kept + "/now-" + kNames[altered], *target);
    const std::string refusal = read(files, altered);
    ++(refusal.empty() ? served : refused);
    if (!kept.empty() && kinds.insert(kind_of(refusal)).second)
      write_file(kept + "/" + std::to_string(kinds.size()) + "-" + kNames[altered], *target);
  }
  std::printf("%zu served, %zu refused\n", served, refused);
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 4) return 2;
  const Files whole = read_files(arguments[1]);
  read_network(whole);  // as it is, it has to be served
  if (std::string(arguments[2]) == "--replay") return replay(whole, count - 3, arguments + 3);
  return attack(whole, std::atol(arguments[2]), std::strtoull(arguments[3], nullptr, 10), count > 4 ? arguments[4] : "");
}
