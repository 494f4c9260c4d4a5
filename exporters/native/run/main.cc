// slmc-run: an artifact's text, labels and figures, without Python and without ONNX Runtime.
#include <cstdio>
#include <new>

#include "agent.h"
#include "commands.h"
#include "generation.h"
#include "machine.h"
#include "options.h"
#include "utf8.h"
#include "worker.h"

namespace {

using namespace slmc;
using namespace slmc::run;

constexpr int kDone = 0, kFailed = 2;

// What the model reads: ids of a file, a conversation as its template writes it, or the prompt behind its begin tokens.
std::vector<int32_t> prompt_ids(Artifact* artifact, const Options& options) {
  const Manifest& manifest = artifact->manifest();
  if (!options.ids_file.empty()) return read_ids(options.ids_file);
  if (options.chat) {
    const std::string* system = options.has_system ? &options.system : nullptr;
    return artifact->tokenizer().encode(chat_text(manifest.rules, options.prompt, system), false);
  }
  std::vector<int32_t> ids = manifest.has_rules ? manifest.rules.begin : std::vector<int32_t>();
  for (const int32_t id : artifact->tokenizer().encode(options.prompt, !manifest.has_rules)) ids.push_back(id);
  if (ids.empty()) ids.push_back(manifest.rules.start);
  return ids;
}

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

Request request_of(Artifact* artifact, const Options& options, std::vector<int32_t> ids) {
  const TextRules& rules = artifact->manifest().rules;
  Request request;
  request.prompt = std::move(ids);
  request.tokens = options.tokens;
  request.sampling = options.sampling;
  request.stop = options.stop;
  if (!options.no_stop) {
    request.end = rules.end;
    if (options.chat) request.end.insert(request.end.end(), rules.chat.end.begin(), rules.chat.end.end());
    request.stop.insert(request.stop.end(), rules.stop.begin(), rules.stop.end());
  }
  request.text = [](std::string_view text) {
    print(text);
    return true;
  };
  if (options.ids) {
    request.token = [](int32_t token) {
      print(std::to_string(token) + "\n");
      return true;
    };
  } else {
    request.tokenizer = &artifact->tokenizer();
  }
  return request;
}

void write_text(Artifact* artifact, const Options& options) {
  const Request request = request_of(artifact, options, prompt_ids(artifact, options));
  if (request.prompt.empty()) throw Refusal("the prompt has no tokens");
  if (static_cast<int64_t>(request.prompt.size()) > artifact->room())
    throw Refusal("the prompt has " + std::to_string(request.prompt.size()) + " tokens, and the context is " +
                  std::to_string(artifact->room()) + "; shorten it");
  give_back_code();
  if (request.tokenizer && !options.chat) print(request.tokenizer->decode(request.prompt));
  const Figures figures = generate(artifact, request);
  if (request.tokenizer) print("\n");
  if (figures.ended == Ended::kContext)
    std::fprintf(stderr, "the context of %lld tokens is full: the text ends here\n",
                 static_cast<long long>(artifact->manifest().context));
  if (!options.stats) return;
  std::fprintf(stderr, "prompt of %zu tokens in %.4f s; %zu tokens written in %.4f s", request.prompt.size(),
               figures.prompt_seconds, figures.tokens, figures.seconds);
  if (figures.steps) std::fprintf(stderr, ", %.0f tokens per second", static_cast<double>(figures.steps) / figures.seconds);
  std::fprintf(stderr, "; peak of memory %.2f MB\n", static_cast<double>(peak_bytes()) / 1e6);
}

void use_artifact(const Options& options) {
  if (options.encode) return encode_stdin(options.folder);
  if (options.check) {
    const Source source(options.folder);
    const size_t files = check_files(source, read_manifest(source));
    std::printf("%zu files as the manifest says\n", files);
    return;
  }
  const double began = now_seconds();
  Artifact artifact(options.folder, options.threads);
  const double load_ms = (now_seconds() - began) * 1e3;
  give_back_code();
  if (options.serve) return serve(&artifact);
  if (options.bench) {
    BenchOptions bench_options = options.bench_options;
    bench_options.load_ms = load_ms;
    return bench(&artifact, bench_options);
  }
  if (!options.eval_file.empty()) return evaluate(&artifact, read_ids(options.eval_file), options.logits_file);
  if (!artifact.manifest().labels.empty()) return label(&artifact, prompt_ids(&artifact, options));
  write_text(&artifact, options);
}

int carry_out(const Options& options) {
  if (!options.visit.empty()) return visit(options.visit);
  if (!options.worker.empty()) answer(options.worker);
  else use_artifact(options);
  return kDone;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return carry_out(read_options(count, arguments));
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "error: there is not enough memory\n");
  } catch (const std::exception& error) {
    std::fflush(stdout);
    std::fprintf(stderr, "error: %s\n", one_line(error.what()).c_str());
  }
  return kFailed;
}
