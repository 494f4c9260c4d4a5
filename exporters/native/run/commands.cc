#include "commands.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "generation.h"
#include "machine.h"

namespace slmc::run {
namespace {

// Tokens that every model knows; what they are does not matter to speed.
std::vector<int32_t> some_tokens(size_t count) {
  std::vector<int32_t> ids(count);
  for (size_t i = 0; i < count; ++i) ids[i] = static_cast<int32_t>(1 + i % 200);
  return ids;
}

struct Rounds {
  std::vector<double> seconds, cpu;
};

// Reads `count` tokens, `most` at a time, in every round from the beginning.
Rounds timed(Artifact* artifact, size_t count, size_t most, size_t rounds) {
  const std::vector<int32_t> ids = some_tokens(count);
  Rounds found;
  for (size_t round = 0; round <= rounds; ++round) {  // the first one warms up
    artifact->reset();
    const Timed began = now_ms();
    for (size_t at = 0; at < count; at += most) artifact->feed(ids.data() + at, std::min(most, count - at));
    if (round == 0) continue;
    const Timed took = since_ms(began);
    found.seconds.push_back(took.wall / 1e3);
    found.cpu.push_back(took.cpu / 1e3);
  }
  return found;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

void print_row(const BenchOptions& options, size_t prompt, size_t tokens, const Rounds& rounds, bool last) {
  const double count = static_cast<double>(prompt + tokens), rounds_count = static_cast<double>(rounds.seconds.size());
  std::vector<double> rates;
  for (const double seconds : rounds.seconds) rates.push_back(count / seconds);
  const double rate = mean(rates), ns = mean(rounds.seconds) * 1e9;
  double rate_spread = 0, ns_spread = 0;
  for (size_t i = 0; i < rates.size(); ++i) {
    rate_spread += (rates[i] - rate) * (rates[i] - rate);
    ns_spread += (rounds.seconds[i] * 1e9 - ns) * (rounds.seconds[i] * 1e9 - ns);
  }
  const double divisor = std::max(rounds_count - 1, 1.0);
  const double least = *std::min_element(rounds.cpu.begin(), rounds.cpu.end());
  std::printf("  {\"runtime\": \"slmc-run\", \"n_threads\": %d, \"n_prompt\": %zu, \"n_gen\": %zu, \"avg_ns\": %.0f, "
              "\"stddev_ns\": %.0f, \"avg_ts\": %.3f, \"stddev_ts\": %.3f, \"least_cpu_ms_per_token\": %.6f, "
              "\"load_ms\": %.3f, \"peak_rss_bytes\": %zu}%s\n",
              options.threads, prompt, tokens, ns, std::sqrt(ns_spread / divisor), rate, std::sqrt(rate_spread / divisor),
              least * 1e3 / count, options.load_ms, peak_bytes(), last ? "" : ",");
}

class OutputFile {
 public:
  explicit OutputFile(const std::string& path) : file_(path.empty() ? nullptr : std::fopen(path.c_str(), "wb")), path_(path) {
    if (!path.empty() && !file_) throw Refusal(path + ": cannot be written");
  }
  ~OutputFile() {
    if (file_) std::fclose(file_);
  }
  void write(const float* values, size_t count) {
    if (file_ && std::fwrite(values, sizeof *values, count, file_) != count) throw Refusal(path_ + ": cannot be written");
  }

 private:
  std::FILE* file_;
  std::string path_;
};

double loss_of(const float* logits, size_t count, int32_t token) {
  if (token < 0 || static_cast<size_t>(token) >= count) throw Refusal("token " + std::to_string(token) + " is not in the vocabulary");
  const double most = logits[largest(logits, count)];
  double total = 0;
  for (size_t i = 0; i < count; ++i) total += std::exp(logits[i] - most);
  return most + std::log(total) - logits[token];
}

}  // namespace

// VmHWM: getrusage still counts what the process was before it became this program.
size_t peak_bytes() {
  std::FILE* file = std::fopen("/proc/self/status", "r");
  if (!file) return 0;
  char line[256];
  size_t kilobytes = 0;
  while (std::fgets(line, sizeof line, file))
    if (std::sscanf(line, "VmHWM: %zu kB", &kilobytes) == 1) break;
  std::fclose(file);
  return kilobytes * 1024;
}

void bench(Artifact* artifact, const BenchOptions& options) {
  const int64_t room = artifact->manifest().context;
  const auto fitting = [&](size_t count) { return room < 0 ? count : std::min(count, static_cast<size_t>(room)); };
  const size_t prompt = fitting(options.prompt);
  const size_t tokens = artifact->manifest().whole_texts ? 0 : fitting(options.tokens);
  std::printf("[\n");
  if (prompt) print_row(options, prompt, 0, timed(artifact, prompt, prompt, options.rounds), tokens == 0);
  if (tokens) print_row(options, 0, tokens, timed(artifact, tokens, 1, options.rounds), true);
  std::printf("]\n");
}

void evaluate(Artifact* artifact, const std::vector<int32_t>& ids, const std::string& logits_file) {
  if (!artifact->manifest().labels.empty()) throw Refusal("--eval is for language models; a classifier labels texts (-p)");
  const int64_t context = artifact->manifest().context;
  const size_t piece = context < 0 ? ids.size() : static_cast<size_t>(context);
  OutputFile file(logits_file);
  double loss = 0;
  size_t counted = 0, right = 0;
  for (size_t begin = 0; begin < ids.size(); begin += piece) {  // longer texts in pieces, each from empty states
    const size_t end = std::min(ids.size(), begin + piece);
    artifact->reset();
    artifact->feed(ids.data() + begin, end - begin, [&](const Tensor& logits, size_t first) {
      const auto rows = static_cast<size_t>(logits.shape.dims[1]), width = static_cast<size_t>(logits.shape.last());
      file.write(logits.as<float>(), rows * width);
      for (size_t row = 0; row < rows && begin + first + row + 1 < end; ++row) {
        const float* scores = logits.as<float>() + row * width;
        const int32_t next = ids[begin + first + row + 1];
        loss += loss_of(scores, width, next);
        right += largest(scores, width) == static_cast<size_t>(next);
        ++counted;
      }
    });
  }
  if (!counted) throw Refusal("--eval: two tokens or more are needed");
  std::printf("{\"tokens\": %zu, \"perplexity\": %.9g, \"top1\": %.9g}\n", counted,
              std::exp(loss / static_cast<double>(counted)), static_cast<double>(right) / static_cast<double>(counted));
}

void label(Artifact* artifact, const std::vector<int32_t>& ids) {
  artifact->feed(ids.data(), ids.size());
  const std::vector<std::string>& labels = artifact->manifest().labels;
  const size_t count = artifact->logit_count();
  if (count != labels.size()) throw Refusal("manifest.json: " + std::to_string(labels.size()) + " labels for " + std::to_string(count) + " scores");
  const float* scores = artifact->logits();
  const size_t best = largest(scores, count);
  double total = 0;
  for (size_t i = 0; i < count; ++i) total += std::exp(static_cast<double>(scores[i]) - scores[best]);
  std::printf("%s\n", labels[best].c_str());
  for (size_t i = 0; i < count; ++i)
    std::printf("%s\t%.4f\t%.1f%%\n", labels[i].c_str(), static_cast<double>(scores[i]),
                100 * std::exp(static_cast<double>(scores[i]) - scores[best]) / total);
}

std::vector<int32_t> read_ids(const std::string& path) {
  const MappedFile file(path, 1 << 30);
  if (file.size() % sizeof(int32_t)) throw Refusal(path + ": not a file of int32 numbers");
  std::vector<int32_t> ids(file.size() / sizeof(int32_t));
  if (!ids.empty()) std::memcpy(ids.data(), file.data(), file.size());
  return ids;
}

}  // namespace slmc::run
