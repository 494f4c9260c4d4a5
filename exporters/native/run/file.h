// Files mapped into memory, read only.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace slmc::run {

class MappedFile {
 public:
  MappedFile() = default;
  // Raises Refusal where there is no regular file of that name, or it is larger than `most_bytes`.
  MappedFile(const std::string& path, uint64_t most_bytes);
  MappedFile(MappedFile&& other) noexcept { swap(other); }
  MappedFile& operator=(MappedFile&& other) noexcept {
    swap(other);
    return *this;
  }
  ~MappedFile();

  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  void swap(MappedFile& other) noexcept;

  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// What no length or offset in a file may lead beyond.
struct Span {
  const uint8_t* data = nullptr;
  size_t size = 0;

  std::string_view text() const { return {reinterpret_cast<const char*>(data), size}; }
};

}  // namespace slmc::run
