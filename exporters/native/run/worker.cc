#include "worker.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iterator>
#include <new>

#include "machine.h"
#include "probing.h"

extern "C" const char* slmc_isa_name(void);

namespace slmc::run {
namespace {

constexpr size_t kMostJobBytes = 1 << 27;

struct Request {
  size_t depth = 0, prompt = 0, tokens = 0, rounds = 0;
  int threads = 1;
  double budget_s = 0;
  bool bandwidth = false;
  std::vector<int32_t> text;
  int64_t seed = 0, chunk = 0;
};

Request read_request(const JsonValue& json) {
  Request request;
  request.prompt = static_cast<size_t>(json["prompt_tokens"].integer(0, 1 << 24));
  if (!json["depth_tokens"].null()) request.depth = static_cast<size_t>(json["depth_tokens"].integer(0, 1 << 24));
  request.tokens = static_cast<size_t>(json["generate_tokens"].integer(0, 1 << 30));
  request.rounds = static_cast<size_t>(json["repetitions"].integer(1, 1 << 20));
  request.threads = static_cast<int>(json["threads"].integer(1, 256));
  request.budget_s = json["budget_s"].number();
  request.bandwidth = json["bandwidth"].boolean();
  request.text = token_list(json["tokens"]);
  request.seed = json["seed"].integer(INT64_MIN, INT64_MAX);
  request.chunk = json["chunk_tokens"].integer(1, 1 << 24);
  return request;
}

// The request's tokens over and over, or arbitrary ones without end.
class Text {
 public:
  Text(const Request& request, size_t vocabulary)
      : tokens_(request.text), vocabulary_(vocabulary), state_(static_cast<uint64_t>(request.seed)) {}

  std::vector<int32_t> take(size_t count) {
    std::vector<int32_t> taken(count);
    for (int32_t& token : taken) {
      if (tokens_.empty()) token = static_cast<int32_t>(((state_ = state_ * 6364136223846793005u + 1) >> 33) % vocabulary_);
      else token = tokens_[at_++ % tokens_.size()];
    }
    return taken;
  }

 private:
  const std::vector<int32_t>& tokens_;
  size_t vocabulary_, at_ = 0;
  uint64_t state_;
};

struct Samples {
  std::vector<double> wall, cpu;
  void add(const Timed& began) {
    const Timed took = since_ms(began);
    wall.push_back(took.wall);
    cpu.push_back(took.cpu);
  }
};

// One token more; of a model that reads whole texts in one call, a text of one token.
void step(Artifact* artifact, int32_t token) {
  if (artifact->manifest().whole_texts) artifact->reset();
  artifact->feed(&token, 1);
}

struct Repeated {
  Samples prompts, decodes, references;
};

// Every repetition does all three pieces of work in turn, so that a machine that slows down slows all of them.
Repeated repeat(Artifact* artifact, const Request& request, Text* text) {
  const auto read = [&](size_t count) {
    const std::vector<int32_t> ids = text->take(count);
    if (count) artifact->feed(ids.data(), count);
  };
  const auto begin = [&] {
    artifact->reset();
    read(request.depth);
  };
  begin();  // one round that does not count: memory is allocated, weights are in the file cache
  read(request.prompt);
  for (const int32_t token : text->take(std::min<size_t>(3, request.tokens))) step(artifact, token);
  Repeated found;
  const double end = now_ms().wall + request.budget_s * 1e3;
  for (size_t round = 0; round < request.rounds && (round == 0 || now_ms().wall <= end); ++round) {
    const Timed reference = timed_reference();
    found.references.wall.push_back(reference.wall);
    found.references.cpu.push_back(reference.cpu);
    begin();
    if (request.prompt) {
      const Timed began = now_ms();
      read(request.prompt);
      found.prompts.add(began);
    }
    for (const int32_t token : text->take(request.tokens)) {
      const Timed began = now_ms();
      step(artifact, token);
      found.decodes.add(began);
    }
  }
  return found;
}

void write_samples(JsonText* json, const Repeated& found) {
  json->list("prompt_wall_ms", found.prompts.wall).list("prompt_cpu_ms", found.prompts.cpu);
  json->list("decode_wall_ms", found.decodes.wall).list("decode_cpu_ms", found.decodes.cpu);
  json->list("reference_wall_ms", found.references.wall).list("reference_cpu_ms", found.references.cpu);
}

void write_request(JsonText* json, const Request& request, size_t rounds) {
  json->string("cpu", cpu_name()).integer("threads", request.threads);
  json->integer("prompt_tokens", static_cast<int64_t>(request.prompt));
  json->integer("generate_tokens", static_cast<int64_t>(request.tokens));
  json->integer("depth_tokens", static_cast<int64_t>(request.depth));
  json->integer("chunk_tokens", request.chunk).integer("repetitions", static_cast<int64_t>(rounds));
  json->boolean("random_tokens", request.text.empty());
}

void write_runtime(JsonText* json) {
  json->string("isa", slmc_isa_name()).string("runtime", "slmc-run").string("ort_version", "").null("native_library");
}

struct JobKind {
  const char* name;  // of the answer in the document
  void (*answer)(const JsonValue& job, JsonText* json);
};

constexpr JobKind kJobs[] = {
    {"measurement", [](const JsonValue& job, JsonText* json) {
       measure(job["artifact"].text(), job["request"], json);
       write_runtime(json);
     }},
    {"evaluation", [](const JsonValue& job, JsonText* json) {
       evaluate(job["artifact"].text(), job["request"], json);
       write_runtime(json);
     }},
    {"probed", probe},
};

}  // namespace

std::vector<int32_t> token_list(const JsonValue& list) {
  std::vector<int32_t> ids;
  list.each([&](const JsonValue& id) { ids.push_back(static_cast<int32_t>(id.integer(0, INT32_MAX))); });
  return ids;
}

std::string all_of_stdin() {
  std::string text;
  char block[1 << 16];
  for (ssize_t got; (got = read(0, block, sizeof block)) > 0 && text.size() < kMostJobBytes;)
    text.append(block, static_cast<size_t>(got));
  return text;
}

void measure(const std::string& folder, const JsonValue& json_request, JsonText* json) {
  const Request request = read_request(json_request);
  timed_reference();  // what measuring itself needs would else count as the model's
  const Weight baseline = weigh();
  const Conditions before = conditions();
  const Timed opening = now_ms();
  Artifact artifact(folder, request.threads);
  const double load_ms = now_ms().wall - opening.wall;
  const Weight loaded = weigh();
  const Timed began = now_ms();
  int32_t first = request.text.empty() ? 0 : request.text[0];
  artifact.feed(&first, 1);
  const double first_ms = now_ms().wall - began.wall;
  const Weight after_first = weigh();
  const int64_t said = artifact.manifest().vocabulary;
  Text text(request, said > 0 ? static_cast<size_t>(said) : artifact.logit_count());
  const Repeated found = repeat(&artifact, request, &text);
  const Weight ended = weigh();
  const Conditions after = conditions();
  write_request(json, request, found.references.wall.size());
  write_samples(json, found);
  json->number("load_ms", load_ms).number("first_token_ms", first_ms);
  write_facts(json, "baseline", baseline);
  write_facts(json, "loaded", loaded);
  write_facts(json, "after_first_token", after_first);
  write_facts(json, "ended", ended);
  write_facts(json, "before", before);
  write_facts(json, "after", after);
  json->known("temperature_before_c", before.temperature_c).known("temperature_after_c", after.temperature_c);
  json->integer("state_bytes", static_cast<int64_t>(artifact.state_bytes())).null("generation_uj");
  json->known("read_bandwidth_gbs", request.bandwidth ? read_bandwidth_gbs() : -1);
}

void answer(const std::string& kind) {
  const auto wanted = std::find_if(std::begin(kJobs), std::end(kJobs), [&](const JobKind& job) { return kind == job.name; });
  if (wanted == std::end(kJobs)) throw Refusal("--worker: 'measurement', 'evaluation' or 'probed'");
  JsonText json;
  json.open();
  const auto failed = [&](const char* error, const char* text) {
    json = JsonText();
    json.open().open("error").string("kind", error).string("text", text).close();
  };
  try {
    const std::string text = all_of_stdin();
    const Json job(text, "job");
    json.open(wanted->name);
    wanted->answer(job.root(), &json);
    json.close();
  } catch (const std::bad_alloc&) {
    failed("NotAvailable", "there is not enough memory");
  } catch (const std::exception& error) {
    failed("SlmcError", error.what());
  }
  json.close();
  std::printf("%s\n", json.text().c_str());
}

}  // namespace slmc::run
