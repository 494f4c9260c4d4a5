#include "child.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "machine.h"
#include "operator.h"

namespace slmc::run {
namespace {

constexpr int kWatchMs = 2, kPollMs = 50;
constexpr size_t kBlockBytes = 1 << 16;
constexpr int kNotStarted = 127;

struct Pipe {
  int read_end = -1, write_end = -1;
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) throw Refusal(std::string("no pipe: ") + std::strerror(errno));
    read_end = ends[0], write_end = ends[1];
  }
  ~Pipe() { close_read(), close_write(); }
  void close_read() {
    if (read_end >= 0) close(read_end);
    read_end = -1;
  }
  void close_write() {
    if (write_end >= 0) close(write_end);
    write_end = -1;
  }
};

void keep_cores(int count) {
  cpu_set_t mine, kept;
  if (count < 0 || sched_getaffinity(0, sizeof mine, &mine) != 0) return;
  CPU_ZERO(&kept);
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&kept) < count; ++i)
    if (CPU_ISSET(i, &mine)) CPU_SET(i, &kept);
  sched_setaffinity(0, sizeof kept, &kept);
}

// In the new process: it ends when this one is gone, and has its limits.
[[noreturn]] void become(const std::vector<std::string>& arguments, const Limits& limits, const Pipe& in, const Pipe& out,
                         const Pipe& error) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  setsid();
  keep_cores(limits.cores);
  dup2(in.read_end, 0);
  dup2(out.write_end, 1);
  dup2(error.write_end, 2);
  std::vector<char*> words;
  for (const std::string& word : arguments) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  signal(SIGPIPE, SIG_DFL);
  execv(words[0], words.data());
  _exit(kNotStarted);
}

// Takes what is there; false at the end.
bool drain(int file, std::string* text) {
  char block[kBlockBytes];
  const ssize_t got = read(file, block, sizeof block);
  if (got > 0) text->append(block, static_cast<size_t>(got));
  return got > 0 || (got < 0 && (errno == EINTR || errno == EAGAIN));
}

class Watch {
 public:
  Watch(pid_t child, const Limits& limits, ChildEnd* end)
      : child_(child), limits_(limits), end_(end), until_ms_(now_ms().wall + limits.timeout_s * 1e3),
        status_("/proc/" + std::to_string(child) + "/status") {}

  void look(const std::function<bool()>& wanted) {
    if (limits_.memory_bytes >= 0) {
      const auto peak = static_cast<int64_t>(kilobytes(file_text(status_), "VmHWM"));
      end_->peak_bytes = std::max(end_->peak_bytes, peak);
      if (peak > limits_.memory_bytes) end_->over_limit = true;
    }
    if (now_ms().wall > until_ms_) end_->timed_out = true;
    if (!wanted()) end_->gone = true;
    if (end_->over_limit || end_->timed_out || end_->gone) kill(-child_, SIGKILL), kill(child_, SIGKILL);
  }

 private:
  pid_t child_;
  const Limits& limits_;
  ChildEnd* end_;
  double until_ms_;
  std::string status_;
};

}  // namespace

ChildEnd run_child(const std::vector<std::string>& arguments, const std::string& text, const Limits& limits,
                   const std::function<bool()>& wanted) {
  Pipe in, out, error;
  const pid_t child = fork();
  if (child < 0) throw Refusal(std::string("no process: ") + std::strerror(errno));
  if (child == 0) become(arguments, limits, in, out, error);
  in.close_read(), out.close_write(), error.close_write();
  fcntl(in.write_end, F_SETFL, O_NONBLOCK);
  ChildEnd end;
  Watch watch(child, limits, &end);
  size_t given = 0;
  while (out.read_end >= 0 || error.read_end >= 0) {
    pollfd files[] = {{out.read_end, POLLIN, 0}, {error.read_end, POLLIN, 0}, {in.write_end, POLLOUT, 0}};
    poll(files, 3, limits.memory_bytes >= 0 ? kWatchMs : kPollMs);
    if (files[0].revents && !drain(out.read_end, &end.out)) out.close_read();
    if (files[1].revents && !drain(error.read_end, &end.error)) error.close_read();
    if (files[2].revents) {
      const ssize_t put = write(in.write_end, text.data() + given, text.size() - given);
      if (put > 0) given += static_cast<size_t>(put);
      if (given == text.size() || (put < 0 && errno != EAGAIN && errno != EINTR)) in.close_write();
    }
    watch.look(wanted);
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
  end.code = WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
  return end;
}

}  // namespace slmc::run
