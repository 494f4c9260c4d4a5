#include "source.h"

#include "operator.h"

namespace slmc::run {

Contents Source::open(const std::string& name, uint64_t most_bytes) const {
  if (!folder_.empty()) return Contents(MappedFile(path(name), most_bytes));
  const auto file = files_.find(name);
  if (file == files_.end()) throw Refusal(name + ": it is not among the files that are given");
  if (file->second.size > most_bytes) throw Refusal(name + ": larger than it can be");
  return Contents(file->second);
}

}  // namespace slmc::run
