#include "probing.h"

#include <sched.h>
#include <sys/utsname.h>

#include <algorithm>
#include <string>
#include <vector>

#include "machine.h"
#include "microbenchmark.h"
#include "samples.h"

extern "C" int slmc_isa_level(void);
extern "C" const char* slmc_isa_name(void);
extern "C" const char* slmc_build_id(void);

namespace slmc::run {
namespace {

constexpr int kBandwidthTurns = 5, kMostThreads = 256;
constexpr size_t kReferencePieces = 50;
constexpr double kReferenceMs = 300, kPausesSeconds = 0.5;
constexpr int64_t kMostBytes = int64_t{1} << 40;

Sampled probe_empty(const JsonValue&, const std::string&) { return {static_cast<double>(weigh().rss), 0}; }

// CPU time of the reference work when nothing disturbs it, in microseconds, and what it had to wait meanwhile.
Sampled probe_reference(const JsonValue&, const std::string&) {
  std::vector<double> cpu;
  double wall_sum = 0, cpu_sum = 0;
  const double end = now_ms().wall + kReferenceMs;
  while (cpu.size() < kReferencePieces || now_ms().wall < end) {
    const Timed piece = reference_piece();
    cpu.push_back(piece.cpu);
    wall_sum += piece.wall, cpu_sum += piece.cpu;
  }
  return {1e3 * percentile(cpu, 0.1), wall_sum / std::max(cpu_sum, 1e-9)};
}

Sampled probe_pauses(const JsonValue&, const std::string&) { return pauses(kPausesSeconds); }

Sampled probe_bandwidth(const JsonValue& task, const std::string&) {
  const auto threads = static_cast<int>(task["threads"].integer(1, kMostThreads));
  const auto bytes = static_cast<size_t>(task["working_set_bytes"].integer(1, kMostBytes));
  return {read_gbs_of(threads, bytes, kBandwidthTurns), 0};
}

BlockTensor read_tensor(const JsonValue& tensor) {
  const auto part = [&](const char* name) { return static_cast<size_t>(tensor[name].integer(0, kMostBytes)); };
  return {part("offset_bytes"), part("nbytes"), part("segment_bytes"), part("step_bytes")};
}

Sampled probe_benchmark(const JsonValue& task, const std::string& folder) {
  std::vector<BlockTensor> tensors;
  task["tensors"].each([&](const JsonValue& tensor) { tensors.push_back(read_tensor(tensor)); });
  const std::string name = task["data"].text();
  const ExpandedFile data(folder + "/" + task["block"].text(), tensors,
                          static_cast<size_t>(task["repeats"].integer(1, INT32_MAX)), folder + "/" + name);
  const auto threads = static_cast<int>(task["threads"].integer(1, kMostThreads));
  Microbenchmark benchmark(folder + "/" + task["graph"].text(), data.path(), name, threads);
  return sampled([&] { benchmark.run(); }, threads, task["seconds"].number());
}

// One call of a graph that passes its states on.
Sampled probe_calls(const JsonValue& task, const std::string& folder) {
  StateCalls calls(folder + "/" + task["graph"].text(), task["states"].integer(1, 4096), task["width"].integer(1, 1 << 20));
  return sampled([&] { calls.run(); }, 1, task["seconds"].number());
}

struct Kind {
  const char* name;
  Sampled (*measure)(const JsonValue& task, const std::string& folder);
};

constexpr Kind kKinds[] = {
    {"empty", probe_empty}, {"reference", probe_reference}, {"pauses", probe_pauses},
    {"bandwidth", probe_bandwidth},
    {"benchmark", probe_benchmark}, {"calls", probe_calls},
};

Sampled probe_task(const JsonValue& task, const std::string& folder) {
  const std::string kind = task["kind"].text();
  for (const Kind& known : kKinds)
    if (kind == known.name) return known.measure(task, folder);
  throw Refusal(kind + ": no such task");
}

// The best instruction set that kernels have bodies for, as targets/device/host.py spells it.
const char* host_isa() {
#if defined(__x86_64__)
  static const char* const names[] = {"sse2", "avx2", "avx_vnni", "avx512_vnni", "avx512_vnni"};
  return names[slmc_isa_level()];
#elif defined(__aarch64__)
  return slmc_isa_level() > 1 ? "neon_dotprod" : "neon";
#else
  return "unknown";
#endif
}

void write_facts(JsonText* json) {
  utsname system = {};
  uname(&system);
  cpu_set_t cores;
  json->open("facts").open("cpu");
  json->string("architecture", system.machine).string("model", cpu_name()).string("isa", host_isa());
  json->counted("cores", sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : -1);
  const char* const caches[] = {"l1d_bytes", "l2_bytes", "l3_bytes"};
  for (int level = 1; level <= 3; ++level) json->counted(caches[level - 1], static_cast<int64_t>(cache_bytes(level)));
  const std::string memory = file_text("/proc/meminfo");
  json->counted("memory_bytes", static_cast<int64_t>(kilobytes(memory, "MemTotal"))).close();
  json->string("isa", slmc_isa_name()).string("runtime", "slmc-run").string("kernels", slmc_build_id());
  json->counted("free_bytes", static_cast<int64_t>(kilobytes(memory, "MemAvailable")));
  run::write_facts(json, "conditions", conditions());
  json->close();
}

}  // namespace

void probe(const JsonValue& job, JsonText* json) {
  const std::string folder = job["folder"].text();
  std::vector<Sampled> results;
  job["tasks"].each([&](const JsonValue& task) { results.push_back(probe_task(task, folder)); });
  write_facts(json);
  json->open_list("results");
  for (const Sampled& result : results) json->open().number("value", result.value).number("wait", result.wait).close();
  json->close_list();
}

}  // namespace slmc::run
