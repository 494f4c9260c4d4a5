#include "machine.h"

#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace slmc::run {
namespace {

constexpr char kCpus[] = "/sys/devices/system/cpu/";
constexpr int kMostEntries = 512;  // of a folder of numbered ones
constexpr size_t kReferenceWidth = 2048;

double number_or_nothing(const std::string& path) {
  const std::string text = file_text(path);
  return text.empty() || text[0] < '0' || text[0] > '9' ? -1 : std::atof(text.c_str());
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// The value behind 'name :' in /proc/cpuinfo.
std::string entry(const std::string& text, const char* name) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    const size_t colon = line.find(':');
    if (colon != std::string::npos && line.compare(0, std::strlen(name), name) == 0 &&
        line.find_first_not_of(" \t", std::strlen(name)) == colon) {
      const size_t value = line.find_first_not_of(" \t", colon + 1);
      return value == std::string::npos ? std::string() : line.substr(value);
    }
    at = end + 1;
  }
  return {};
}

double clock_ms(clockid_t clock) {
  timespec time = {};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) * 1e-6;
}

// Written to memory that the compiler cannot see through, so that the work is done.
void reference_work(float* real, int32_t* whole) {
  for (int round = 0; round < 1500; ++round) {
    for (size_t i = 0; i < kReferenceWidth; ++i) real[i] = real[i] * 0.999f + 0.001f;
    for (size_t i = 0; i < kReferenceWidth; ++i) whole[i] ^= 0x5a5a;
    asm volatile("" : : "r"(real), "r"(whole) : "memory");
  }
}

template <typename T>
T median(std::vector<T> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

}  // namespace

std::string file_text(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return {};
  std::string text;
  char block[4096];
  for (ssize_t got; (got = read(file, block, sizeof block)) > 0;) text.append(block, static_cast<size_t>(got));
  close(file);
  return text;
}

size_t kilobytes(const std::string& text, const char* name) {
  const std::string found = entry(text, name);
  return static_cast<size_t>(std::strtoull(found.c_str(), nullptr, 10)) * 1024;
}

Weight weigh() {
  const std::string rollup = file_text("/proc/self/smaps_rollup"), status = file_text("/proc/self/status");
  Weight weight;
  weight.rss = kilobytes(rollup.empty() ? status : rollup, rollup.empty() ? "VmRSS" : "Rss");
  weight.pss = rollup.empty() ? weight.rss : kilobytes(rollup, "Pss");
  weight.private_ = kilobytes(rollup, "Private_Clean") + kilobytes(rollup, "Private_Dirty");
  weight.anonymous = rollup.empty() ? kilobytes(status, "RssAnon") : kilobytes(rollup, "Anonymous");
  weight.peak = std::max(kilobytes(status, "VmHWM"), weight.rss);
  return weight;
}

void write_facts(JsonText* json, const char* name, const Weight& weight) {
  const auto bytes = [](size_t value) { return static_cast<int64_t>(value); };
  json->open(name);
  json->integer("rss_bytes", bytes(weight.rss)).integer("pss_bytes", bytes(weight.pss));
  json->integer("private_bytes", bytes(weight.private_)).integer("anonymous_bytes", bytes(weight.anonymous));
  json->integer("file_backed_bytes", bytes(weight.rss - std::min(weight.rss, weight.anonymous)));
  json->integer("peak_bytes", bytes(weight.peak)).close();
}

Conditions conditions() {
  Conditions found;
  const std::string cpus = kCpus;
  found.governor = first_line(file_text(cpus + "cpu0/cpufreq/scaling_governor"));
  const double clock = number_or_nothing(cpus + "cpu0/cpufreq/scaling_cur_freq");
  if (clock >= 0) found.clock_mhz = clock / 1e3;
  for (int i = 0; i < kMostEntries; ++i) {
    const double events = number_or_nothing(cpus + "cpu" + std::to_string(i) + "/thermal_throttle/core_throttle_count");
    if (events < 0) break;
    found.throttle_events = std::max(found.throttle_events, 0.0) + events;
  }
  for (int i = 0; i < kMostEntries; ++i) {
    const std::string text = file_text("/sys/class/thermal/thermal_zone" + std::to_string(i) + "/temp");
    if (text.empty()) break;
    found.temperature_c = std::max(found.temperature_c, std::atof(text.c_str()) / 1e3);
  }
  for (int i = 0; i < 32; ++i)
    found.undervolted = std::max(
        found.undervolted, number_or_nothing("/sys/class/hwmon/hwmon" + std::to_string(i) + "/in0_lcrit_alarm"));
  return found;
}

void write_facts(JsonText* json, const char* name, const Conditions& found) {
  json->open(name);
  if (found.governor.empty()) json->null("governor");
  else json->string("governor", found.governor);
  json->known("clock_mhz", found.clock_mhz).known("temperature_c", found.temperature_c);
  if (found.throttle_events < 0) json->null("throttle_events");
  else json->integer("throttle_events", static_cast<int64_t>(found.throttle_events));
  if (found.undervolted < 0) json->null("undervolted");
  else json->boolean("undervolted", found.undervolted > 0);
  json->close();
}

std::string cpu_name() {
  const std::string text = file_text("/proc/cpuinfo"), named = entry(text, "model name"), part = entry(text, "CPU part");
  if (part.empty()) return named.empty() ? "unknown" : named;
  const std::string board = file_text("/proc/device-tree/model");
  const std::string core = "implementer " + entry(text, "CPU implementer") + " part " + part;
  return board.empty() ? core : core + " (" + board.substr(0, board.find_first_of("\n\0", 0, 2)) + ")";
}

size_t cache_bytes(int level) {
  size_t largest = 0;
  for (int i = 0; i < 8; ++i) {
    const std::string folder = std::string(kCpus) + "cpu0/cache/index" + std::to_string(i);
    const std::string size = file_text(folder + "/size");
    if (size.empty()) break;
    if (std::atoi(file_text(folder + "/level").c_str()) != level || file_text(folder + "/type")[0] == 'I') continue;
    const size_t unit = size.find('M') != std::string::npos ? 1 << 20 : 1 << 10;
    largest = std::max(largest, static_cast<size_t>(std::atoll(size.c_str())) * unit);
  }
  return largest;
}

size_t last_cache_bytes() { return std::max({cache_bytes(1), cache_bytes(2), cache_bytes(3), cache_bytes(4)}); }

// As targets/device/bandwidth.py: eight times the last cache, within limits, a quarter of the free memory at most.
double read_bandwidth_gbs() {
  const size_t cache = last_cache_bytes(), free = kilobytes(file_text("/proc/meminfo"), "MemAvailable");
  size_t bytes = std::max(std::min(std::max(8 * cache, size_t{64} << 20), size_t{512} << 20), 2 * cache);
  bytes = std::min(bytes, free / 4) & ~size_t{4095};
  if (bytes < std::max(2 * cache, size_t{1} << 20)) return -1;
  const std::vector<int32_t> memory(bytes / sizeof(int32_t), 1);
  std::vector<double> rates;
  const double end = clock_ms(CLOCK_MONOTONIC) + 1e3;
  while (rates.size() < 3 || (rates.size() < 9 && clock_ms(CLOCK_MONOTONIC) < end)) {
    const double began = clock_ms(CLOCK_PROCESS_CPUTIME_ID);
    int32_t bits = 0;
    for (const int32_t value : memory) bits |= value;
    asm volatile("" : : "r"(bits));
    rates.push_back(static_cast<double>(bytes) / 1e6 / std::max(clock_ms(CLOCK_PROCESS_CPUTIME_ID) - began, 1e-6));
  }
  return median(rates);
}

void give_back_code() {
  dl_iterate_phdr(
      [](dl_phdr_info* program, size_t, void*) {
        const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
        for (int i = 0; i < program->dlpi_phnum; ++i) {
          const auto& segment = program->dlpi_phdr[i];
          if (segment.p_type != PT_LOAD || segment.p_flags & PF_W) continue;
          const uintptr_t at = program->dlpi_addr + segment.p_vaddr, first = at / page * page;
          const uintptr_t end = (at + segment.p_memsz) / page * page;
          if (end > first) madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
        }
        return 1;  // the first is this program, what follows are its libraries
      },
      nullptr);
}

Timed now_ms() { return {clock_ms(CLOCK_MONOTONIC), clock_ms(CLOCK_PROCESS_CPUTIME_ID)}; }

Timed since_ms(const Timed& began) {
  const double cpu = clock_ms(CLOCK_PROCESS_CPUTIME_ID) - began.cpu;
  return {clock_ms(CLOCK_MONOTONIC) - began.wall, cpu};
}

Timed reference_piece() {
  static std::vector<float> real(kReferenceWidth, 1);
  static std::vector<int32_t> whole(kReferenceWidth, 3);
  const Timed began = now_ms();
  reference_work(real.data(), whole.data());
  return since_ms(began);
}

Timed timed_reference() {
  std::vector<double> walls, cpus;
  for (int piece = 0; piece < 5; ++piece) {
    const Timed took = reference_piece();
    walls.push_back(took.wall);
    cpus.push_back(took.cpu);
  }
  return {median(walls), median(cpus)};
}

}  // namespace slmc::run
