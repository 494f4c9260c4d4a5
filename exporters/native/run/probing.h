// slmc-run as a machine that is probed: the C++ reading of targets/device/probing.py, for machines without Python.
#pragma once
#include "json.h"
#include "json_text.h"

namespace slmc::run {

// The machine's facts and what every task of a job gave, as `Probed` there.
void probe(const JsonValue& job, JsonText* json);

}  // namespace slmc::run
