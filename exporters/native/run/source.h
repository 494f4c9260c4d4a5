// Where an artifact's files come from: a folder, or memory that the caller keeps.
#pragma once
#include <map>
#include <string>

#include "file.h"

namespace slmc::run {

// One file's contents: mapped, or somebody else's memory.
class Contents {
 public:
  Contents() = default;
  explicit Contents(MappedFile file) : file_(std::move(file)), bytes_{file_.data(), file_.size()} {}
  explicit Contents(Span bytes) : bytes_(bytes) {}
  Contents(Contents&& other) noexcept : file_(std::move(other.file_)), bytes_(other.bytes_) {}
  Contents& operator=(Contents&& other) noexcept {
    file_ = std::move(other.file_);
    bytes_ = other.bytes_;
    return *this;
  }

  Span bytes() const { return bytes_; }

 private:
  MappedFile file_;
  Span bytes_;
};

class Source {
 public:
  explicit Source(std::string folder) : folder_(std::move(folder)) {}
  // Names of files and what they hold, which must outlive all that is opened.
  explicit Source(std::map<std::string, Span> files) : files_(std::move(files)) {}

  // Raises Refusal where there is no such file, or it is larger than `most_bytes`.
  Contents open(const std::string& name, uint64_t most_bytes) const;
  // As messages name it.
  std::string path(const std::string& name) const { return folder_.empty() ? name : folder_ + "/" + name; }

 private:
  std::string folder_;
  std::map<std::string, Span> files_;
};

}  // namespace slmc::run
