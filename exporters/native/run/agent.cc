#include "agent.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "child.h"
#include "file.h"
#include "json.h"
#include "json_text.h"
#include "sha256.h"
#include "worker.h"

namespace slmc::run {
namespace {

constexpr size_t kBlockBytes = 1 << 16, kMostLineBytes = 1 << 27, kTailBytes = 4000;
constexpr uint64_t kMostFileBytes = uint64_t{1} << 40;
volatile sig_atomic_t stopped = 0;

struct Gone {};  // nobody listens any more

// A request that cannot be met; the kind is what the other side tells apart.
struct Refused {
  const char* kind;
  std::string text;
};

void remove_all(const std::string& path) {
  if (DIR* folder = opendir(path.c_str())) {
    while (const dirent* entry = readdir(folder)) {
      const std::string name = entry->d_name;
      if (name == "." || name == "..") continue;
      if (unlink((path + "/" + name).c_str()) != 0) remove_all(path + "/" + name);
    }
    closedir(folder);
  }
  rmdir(path.c_str());
}

class Input {
 public:
  std::string line() {
    for (;;) {
      const size_t end = held_.find('\n');
      if (end != std::string::npos) {
        const std::string found = held_.substr(0, end);
        held_.erase(0, end + 1);
        return found;
      }
      if (held_.size() > kMostLineBytes) throw Gone();
      more();
    }
  }

  // At least one byte and `most` at most.
  std::string block(size_t most) {
    if (held_.empty()) more();
    const std::string found = held_.substr(0, most);
    held_.erase(0, found.size());
    return found;
  }

  // The other side says nothing while it waits for an answer: something to read then is the end of the connection.
  bool open() {
    if (stopped) return false;
    pollfd file = {0, POLLIN, 0};
    if (poll(&file, 1, 0) <= 0 || !file.revents) return true;
    char block[256];
    const ssize_t got = read(0, block, sizeof block);
    if (got > 0) held_.append(block, static_cast<size_t>(got));
    return got > 0;
  }

 private:
  void more() {
    char block[kBlockBytes];
    const ssize_t got = read(0, block, sizeof block);
    if (stopped || got == 0 || (got < 0 && errno != EINTR)) throw Gone();
    if (got > 0) held_.append(block, static_cast<size_t>(got));
  }

  std::string held_;
};

std::string facts(const std::string& folder) {
  utsname name = {};
  uname(&name);
  struct statvfs room = {};
  if (statvfs(folder.c_str(), &room) != 0) throw Refused{"place", folder + ": " + std::strerror(errno)};
  cpu_set_t cores;
  const int count = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
  JsonText json;
  json.open().string("python", "").string("system", name.sysname).string("machine", name.machine);
  json.open("packages").close().string("place", folder);
  json.integer("free_bytes", static_cast<int64_t>(uint64_t{room.f_bavail} * room.f_frsize)).integer("cores", count);
  return json.close().text();
}

// A name from the other side is a path inside the folder.
void check_name(const std::string& name) {
  if (name.empty() || name[0] == '/' || ("/" + name + "/").find("/../") != std::string::npos)
    throw Refused{"place", name + ": not a path inside the folder"};
}

void receive_file(Input* input, const std::string& folder, const std::string& name, uint64_t size, const std::string& sum) {
  check_name(name);
  const std::string path = folder + "/" + name;
  for (size_t at = folder.size() + 1; (at = path.find('/', at)) != std::string::npos; ++at)
    mkdir(path.substr(0, at).c_str(), 0700);
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) throw Refused{"disk", path + ": " + std::strerror(errno)};
  for (uint64_t left = size; left;) {
    const std::string block = input->block(static_cast<size_t>(std::min<uint64_t>(left, kBlockBytes)));
    for (size_t put = 0; put < block.size();) {
      const ssize_t count = write(file, block.data() + put, block.size() - put);
      if (count < 0) {
        const int why = errno;
        close(file);
        throw Refused{"disk", path + ": " + std::strerror(why)};
      }
      put += static_cast<size_t>(count);
    }
    left -= block.size();
  }
  if (close(file) != 0) throw Refused{"disk", path + ": " + std::strerror(errno)};
  const MappedFile arrived(path, kMostFileBytes);
  if (sha256({arrived.data(), arrived.size()}) != sum)
    throw Refused{"arrival", name + " arrived with other contents than it was sent with (SHA-256 differs)"};
}

std::string receive(Input* input, const JsonValue& request, const std::string& own_folder) {
  const std::string folder = request["folder"].text();
  if (folder.compare(0, own_folder.size() + 1, own_folder + "/") != 0) throw Refused{"place", folder + ": not inside " + own_folder};
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) throw Refused{"disk", folder + ": " + std::strerror(errno)};
  request["files"].each([&](const JsonValue& file) {
    std::string name, sum;
    int64_t size = 0, place = 0;
    file.each([&](const JsonValue& part) {
      if (place == 0) name = part.text();
      if (place == 1) size = part.integer(0, INT64_MAX);
      if (place++ == 2) sum = part.text();
    });
    receive_file(input, folder, name, static_cast<uint64_t>(size), sum);
  });
  JsonText json;
  return json.open().integer("files", static_cast<int64_t>(request["files"].size())).close().text();
}

std::string run(Input* input, const JsonValue& request) {
  std::vector<std::string> arguments;
  request["argv"].each([&](const JsonValue& word) { arguments.push_back(word.text()); });
  if (arguments.empty()) throw Refused{"run", "no program is named"};
  Limits limits;
  limits.timeout_s = request["timeout_s"].number();
  if (!request["memory_bytes"].null()) limits.memory_bytes = request["memory_bytes"].integer(0, INT64_MAX);
  if (!request["cores"].null()) limits.cores = static_cast<int>(request["cores"].integer(1, 4096));
  const ChildEnd end = run_child(arguments, request["stdin"].text(), limits, [&] { return input->open(); });
  if (end.gone) throw Gone();
  JsonText json;
  json.open().integer("returncode", end.code).string("stdout", end.out);
  json.string("stderr", end.error.substr(end.error.size() - std::min(end.error.size(), kTailBytes)));
  json.boolean("timed_out", end.timed_out);
  if (limits.memory_bytes < 0) return json.null("limit").close().text();
  json.open("limit").string("method", "watched: resident memory with mapped weights, every 2 ms");
  json.integer("limit_bytes", limits.memory_bytes);
  if (end.peak_bytes) json.integer("peak_bytes", end.peak_bytes);
  else json.null("peak_bytes");
  return json.boolean("killed", end.over_limit).close().close().text();
}

std::string answer_request(Input* input, const std::string& line, const std::string& folder, bool* refused) {
  *refused = false;
  try {
    const Json document(line, "request");
    const JsonValue request = document.root();
    const std::string wanted = request["do"].text();
    if (wanted == "facts") return facts(folder);
    if (wanted == "receive") return receive(input, request, folder);
    if (wanted == "run") return run(input, request);
    throw Refused{"request", wanted + ": no such request"};
  } catch (const Refused& found) {
    *refused = true;
    return JsonText().open().open("refused").string("kind", found.kind).string("text", found.text).close().close().text();
  } catch (const Refusal& found) {
    *refused = true;
    return JsonText().open().open("refused").string("kind", "request").string("text", found.what()).close().close().text();
  }
}

void stop(int) { stopped = 1; }

// Whether a folder bears the name that targets/remote/agents.py gives one of its own: it is removed at the end.
bool is_of_a_visit(const std::string& folder) {
  const std::string prefix = "slmc-", name = folder.substr(folder.rfind('/') + 1);
  return name.size() == prefix.size() + 32 && name.compare(0, prefix.size(), prefix) == 0 &&
         name.find_first_not_of("0123456789abcdef", prefix.size()) == std::string::npos;
}

}  // namespace

int visit(const std::string& folder) {
  if (!is_of_a_visit(folder))
    throw Refusal(folder + ": removed at the end of a visit, so it must be one of slmc's own, slmc- and 32 hexadecimal digits");
  struct sigaction action = {};
  action.sa_handler = stop;
  for (const int number : {SIGHUP, SIGTERM, SIGINT}) sigaction(number, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  Input input;
  try {
    for (bool refused = false; !refused;) {
      std::string reply = answer_request(&input, input.line(), folder, &refused) + "\n";
      for (size_t put = 0; put < reply.size();) {
        const ssize_t count = write(1, reply.data() + put, reply.size() - put);
        if (count <= 0) throw Gone();
        put += static_cast<size_t>(count);
      }
    }
  } catch (const Gone&) {
  }
  remove_all(folder);
  return 0;
}

}  // namespace slmc::run
