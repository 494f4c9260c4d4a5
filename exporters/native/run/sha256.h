// SHA-256 (FIPS 180-4).
#pragma once
#include <string>

#include "file.h"

namespace slmc::run {

// In lower-case hexadecimal digits.
std::string sha256(Span bytes);

}  // namespace slmc::run
