#include "file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "operator.h"

namespace slmc::run {
namespace {

class Descriptor {
 public:
  explicit Descriptor(const std::string& path) : fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
  const int fd;
};

}  // namespace

MappedFile::MappedFile(const std::string& path, uint64_t most_bytes) {
  const Descriptor file(path);
  if (file.fd < 0) throw Refusal(path + ": cannot be opened (" + std::strerror(errno) + ")");
  struct stat found = {};
  if (fstat(file.fd, &found) != 0 || !S_ISREG(found.st_mode)) throw Refusal(path + ": not a regular file");
  if (static_cast<uint64_t>(found.st_size) > std::min<uint64_t>(most_bytes, SIZE_MAX / 2))
    throw Refusal(path + ": " + std::to_string(found.st_size) + " bytes, allowed are " + std::to_string(most_bytes));
  if (found.st_size == 0) return;
  void* mapped = mmap(nullptr, static_cast<size_t>(found.st_size), PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (mapped == MAP_FAILED) throw Refusal(path + ": cannot be mapped (" + std::strerror(errno) + ")");
  data_ = static_cast<const uint8_t*>(mapped);
  size_ = static_cast<size_t>(found.st_size);
}

MappedFile::~MappedFile() {
  if (data_) munmap(const_cast<uint8_t*>(data_), size_);
}

void MappedFile::swap(MappedFile& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
}

}  // namespace slmc::run
