// An opened artifact at the other end of a pipe.
#include <unistd.h>

#include <cerrno>

#include "worker.h"

namespace slmc::run {
namespace {

constexpr int32_t kMostTokens = 1 << 20;
constexpr uint64_t kMostTokenizerBytes = 1 << 27;

bool read_whole(void* memory, size_t size) {
  auto* bytes = static_cast<char*>(memory);
  while (size) {
    const ssize_t got = read(0, bytes, size);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    bytes += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

void write_whole(const void* memory, size_t size) {
  const auto* bytes = static_cast<const char*>(memory);
  while (size) {
    const ssize_t put = write(1, bytes, size);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) throw Refusal("nobody reads what is written");
    bytes += put;
    size -= static_cast<size_t>(put);
  }
}

void write_number(int32_t number) { write_whole(&number, sizeof number); }

// Logits of one call, as the graph gives them.
void answer_call(Artifact* artifact, const std::vector<int32_t>& ids) {
  std::vector<float> logits;
  if (ids.empty()) {
    artifact->reset();
  } else if (artifact->manifest().labels.empty()) {
    artifact->feed(ids.data(), ids.size(), [&](const Tensor& made, size_t) {
      logits.insert(logits.end(), made.as<float>(), made.as<float>() + made.shape.count());
    });
  } else {
    artifact->feed(ids.data(), ids.size());
    logits.assign(artifact->logits(), artifact->logits() + artifact->logit_count());
  }
  write_number(static_cast<int32_t>(logits.size()));
  write_whole(logits.data(), logits.size() * sizeof(float));
}

}  // namespace

void encode_stdin(const std::string& tokenizer) {
  const MappedFile file(tokenizer, kMostTokenizerBytes);
  const std::vector<int32_t> ids = Tokenizer(file.text()).encode(all_of_stdin(), false);
  write_whole(ids.data(), ids.size() * sizeof(int32_t));
}

void serve(Artifact* artifact) {
  const int32_t first = 0;
  artifact->feed(&first, 1);
  write_number(static_cast<int32_t>(artifact->logit_count()));
  artifact->reset();
  for (int32_t count = 0; read_whole(&count, sizeof count);) {
    if (count < 0 || count > kMostTokens) throw Refusal("a call of " + std::to_string(count) + " tokens");
    std::vector<int32_t> ids(static_cast<size_t>(count));
    if (!read_whole(ids.data(), ids.size() * sizeof(int32_t))) return;
    try {
      answer_call(artifact, ids);
    } catch (const Refusal& refusal) {
      const std::string text = refusal.what();
      write_number(-1);
      write_number(static_cast<int32_t>(text.size()));
      write_whole(text.data(), text.size());
    }
  }
}

}  // namespace slmc::run
