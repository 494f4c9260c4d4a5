// The other end of a visit over ssh: the C++ reading of targets/device/agent.py, for machines without Python.
#pragma once
#include <string>

namespace slmc::run {

// Answers requests, lines of JSON on stdin, by lines on stdout until there are no more or a signal comes, and leaves
// nothing behind: `folder`, in which this program lies, goes with all that is in it. Returns the exit code.
int visit(const std::string& folder);

}  // namespace slmc::run
