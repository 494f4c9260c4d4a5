#include "options.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace slmc::run {
namespace {

constexpr const char kHelp[] =
    "slmc-run ARTIFACT [options]: runs a model that 'slmc build' wrote\n"
    "  -p, --prompt TEXT     text to go on from, a question with --chat, a text to classify (default 'The ')\n"
    "  -n, --tokens N        tokens to write at most (128)\n"
    "  --temp, --temperature X   0 always takes the best token (0.7)\n"
    "  --top-k N             draw from the N best; 0: from all (40)\n"
    "  --top-p X             draw from the fewest that hold this share (1)\n"
    "  --seed N              the same text for the same seed (0)\n"
    "  --stop TEXT           a string that ends the text; repeatable\n"
    "  --no-stop             go on behind the model's own end tokens and stop strings\n"
    "  --chat [--system TEXT]    answer the prompt as the model's chat template asks for\n"
    "  --threads N           (1)\n"
    "  --ids FILE            the prompt as little-endian int32 token ids\n"
    "  --print-ids           write token ids, one per line, in the place of text\n"
    "  --stats               figures on stderr, with the peak of memory\n"
    "  --check               checks every file of the artifact against its SHA-256\n"
    "  --eval FILE [--logits FILE]   perplexity and top-1 of token ids as JSON; every logit into a file\n"
    "  --bench [--pp N] [--tg N] [-r N]   speed as JSON: N tokens of a prompt, N written, N rounds (64, 128, 5)\n";

// The arguments one after another.
class Reader {
 public:
  Reader(int count, char** arguments) : count_(count), arguments_(arguments) {}
  bool next() {
    if (++at_ >= count_) return false;
    current_ = arguments_[at_];
    return true;
  }
  bool is(const char* name) const { return std::strcmp(current_, name) == 0; }
  const char* current() const { return current_; }

  std::string text() {
    const char* name = current_;
    if (!next()) throw Refusal(std::string(name) + " needs a value; see --help");
    return current_;
  }
  double number(double least, double most) {
    const std::string name = current_, given = text();
    char* end = nullptr;
    const double value = std::strtod(given.c_str(), &end);
    if (given.empty() || *end || !(value >= least && value <= most))
      throw Refusal(name + ": '" + given + "' is no number from " + shown(least) + " to " + shown(most));
    return value;
  }
  double whole(double least, double most) {
    const std::string name = current_;
    const double value = number(least, most);
    if (value != std::floor(value)) throw Refusal(name + ": a whole number is needed");
    return value;
  }

 private:
  static std::string shown(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.15g", value);
    return text;
  }

  int count_, at_ = 0;
  char** arguments_;
  const char* current_ = "";
};

bool read_sampling(Reader* reader, Options* options) {
  if (reader->is("--temp") || reader->is("--temperature")) options->sampling.temperature = static_cast<float>(reader->number(0, 1e6));
  else if (reader->is("--top-k")) options->sampling.top_k = static_cast<int32_t>(reader->whole(0, 1e9));
  else if (reader->is("--top-p")) options->sampling.top_p = static_cast<float>(reader->number(0, 1));
  else if (reader->is("--seed")) options->sampling.seed = static_cast<uint64_t>(reader->whole(0, 1e15));
  else return false;
  return true;
}

bool read_bench(Reader* reader, Options* options) {
  if (reader->is("--bench")) options->bench = true;
  else if (reader->is("--pp")) options->bench_options.prompt = static_cast<size_t>(reader->whole(0, 1e6));
  else if (reader->is("--tg")) options->bench_options.tokens = static_cast<size_t>(reader->whole(0, 1e6));
  else if (reader->is("-r")) options->bench_options.rounds = static_cast<size_t>(reader->whole(1, 1e4));
  else return false;
  return true;
}

bool read_text(Reader* reader, Options* options) {
  if (reader->is("-p") || reader->is("--prompt")) options->prompt = reader->text();
  else if (reader->is("-n") || reader->is("--tokens")) options->tokens = static_cast<size_t>(reader->whole(0, 1e9));
  else if (reader->is("--stop")) options->stop.push_back(reader->text());
  else if (reader->is("--no-stop")) options->no_stop = true;
  else if (reader->is("--chat")) options->chat = true;
  else if (reader->is("--system")) options->system = reader->text(), options->has_system = true;
  else return false;
  return true;
}

bool read_other(Reader* reader, Options* options) {
  if (reader->is("--threads")) options->threads = static_cast<int>(reader->whole(1, 256));
  else if (reader->is("--ids")) options->ids_file = reader->text();
  else if (reader->is("--print-ids")) options->ids = true;
  else if (reader->is("--stats")) options->stats = true;
  else if (reader->is("--check")) options->check = true;
  else if (reader->is("--eval")) options->eval_file = reader->text();
  else if (reader->is("--logits")) options->logits_file = reader->text();
  else if (reader->is("--worker")) options->worker = reader->text();
  else if (reader->is("--agent")) options->visit = reader->text();
  else if (reader->is("--serve")) options->serve = true;
  else if (reader->is("--encode")) options->encode = true;
  else return false;
  return true;
}

}  // namespace

Options read_options(int count, char** arguments) {
  Options options;
  Reader reader(count, arguments);
  while (reader.next()) {
    if (reader.is("-h") || reader.is("--help")) {
      std::fputs(kHelp, stdout);
      std::exit(0);
    }
    if (read_text(&reader, &options) || read_sampling(&reader, &options) || read_bench(&reader, &options) ||
        read_other(&reader, &options))
      continue;
    if (reader.current()[0] == '-' || !options.folder.empty())
      throw Refusal(std::string("'") + reader.current() + "' is no option of slmc-run; see --help");
    options.folder = reader.current();
  }
  if (!options.worker.empty() || !options.visit.empty()) return options;
  if (options.folder.empty()) throw Refusal("no artifact named: slmc-run ARTIFACT -p TEXT; see --help");
  if (options.has_system && !options.chat) throw Refusal("--system needs --chat");
  for (const std::string& stop : options.stop)
    if (stop.empty()) throw Refusal("--stop: an empty string ends every text; give some characters");
  if (!options.logits_file.empty() && options.eval_file.empty()) throw Refusal("--logits needs --eval");
  options.bench_options.threads = options.threads;
  return options;
}

}  // namespace slmc::run
