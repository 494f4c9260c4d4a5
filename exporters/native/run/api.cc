// The C interface: no exception crosses it.
#include <new>

#include "artifact.h"
#include "generation.h"
#include "slmc.h"
#include "utf8.h"

using namespace slmc;
using namespace slmc::run;

struct slmc_model {
  Artifact artifact;
};

namespace {

template <typename Body>
const char* guarded(const Body& body) {
  thread_local std::string error;
  try {
    body();
    return nullptr;
  } catch (const std::bad_alloc&) {
    return "there is not enough memory";
  } catch (const std::exception& found) {
    error = one_line(found.what());
    return error.c_str();
  }
}

std::vector<int32_t> prompt_of(Artifact* artifact, const std::string& text) {
  const Manifest& manifest = artifact->manifest();
  std::vector<int32_t> ids;
  const bool begins = artifact->fed() == 0;
  if (manifest.has_rules && begins) ids = manifest.rules.begin;
  for (const int32_t id : artifact->tokenizer().encode(text, !manifest.has_rules && begins)) ids.push_back(id);
  if (ids.empty() && begins) ids.push_back(manifest.rules.start);
  return ids;
}

const char* opened(Source source, int threads, slmc_model** model) {
  *model = nullptr;
  return guarded([&] {
    if (threads < 1 || threads > 256) throw Refusal("threads: from 1 to 256");
    *model = new slmc_model{Artifact(std::move(source), threads)};
  });
}

}  // namespace

extern "C" {

const char* slmc_open(const char* folder, int threads, slmc_model** model) {
  return opened(Source(folder), threads, model);
}

const char* slmc_open_memory(const slmc_file* files, size_t count, int threads, slmc_model** model) {
  std::map<std::string, Span> given;
  for (size_t i = 0; i < count; ++i) given[files[i].name] = {static_cast<const uint8_t*>(files[i].data), files[i].size};
  return opened(Source(std::move(given)), threads, model);
}

void slmc_close(slmc_model* model) { delete model; }

void slmc_describe(const slmc_model* model, slmc_info* info) {
  const Manifest& manifest = model->artifact.manifest();
  *info = {manifest.context, static_cast<int64_t>(model->artifact.state_bytes()),
           static_cast<int32_t>(manifest.labels.size()), manifest.whole_texts, manifest.has_rules};
}

const char* slmc_label(const slmc_model* model, int32_t index) {
  const std::vector<std::string>& labels = model->artifact.manifest().labels;
  return index >= 0 && static_cast<size_t>(index) < labels.size() ? labels[static_cast<size_t>(index)].c_str() : nullptr;
}

void slmc_reset(slmc_model* model) { model->artifact.reset(); }

const char* slmc_feed(slmc_model* model, const int32_t* tokens, size_t count) {
  return guarded([&] { model->artifact.feed(tokens, count); });
}

const float* slmc_logits(const slmc_model* model, size_t* count) {
  *count = model->artifact.logit_count();
  return *count ? model->artifact.logits() : nullptr;
}

const char* slmc_encode(slmc_model* model, const char* text, int32_t* tokens, size_t room, size_t* count) {
  return guarded([&] {
    const std::vector<int32_t> ids = prompt_of(&model->artifact, text);
    *count = ids.size();
    for (size_t i = 0; i < ids.size() && i < room; ++i) tokens[i] = ids[i];
  });
}

const char* slmc_decode(slmc_model* model, const int32_t* tokens, size_t count, char* text, size_t room, size_t* size) {
  return guarded([&] {
    const std::string found = model->artifact.tokenizer().decode({tokens, tokens + count});
    *size = found.size() + 1;
    for (size_t i = 0; i < *size && i < room; ++i) text[i] = found.c_str()[i];
  });
}

const char* slmc_generate(slmc_model* model, const char* text, const slmc_options* options, slmc_writer write, void* user) {
  return guarded([&] {
    const Manifest& manifest = model->artifact.manifest();
    if (!manifest.labels.empty()) throw Refusal("this model tells classes apart and writes no text; ask for slmc_logits");
    Request request;
    request.prompt = prompt_of(&model->artifact, text);
    if (request.prompt.empty()) throw Refusal("there is nothing to go on from; give a text");
    request.tokens = options->tokens;
    request.sampling = {options->temperature, options->top_k, options->top_p, options->seed};
    request.end = manifest.rules.end;
    request.stop = manifest.rules.stop;
    request.tokenizer = &model->artifact.tokenizer();
    request.text = [&](std::string_view piece) { return write(piece.data(), piece.size(), user) == 0; };
    generate(&model->artifact, request);
  });
}

void slmc_save(const slmc_model* model, void* memory) { model->artifact.save(static_cast<uint8_t*>(memory)); }

const char* slmc_restore(slmc_model* model, const void* memory) {
  return guarded([&] { model->artifact.restore(static_cast<const uint8_t*>(memory)); });
}

}  // extern "C"
