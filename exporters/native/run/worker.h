// slmc-run as a measured process of slmc: a job as JSON on stdin, one JSON document on stdout. It answers what
// targets/device/worker.py and targets/device/evaluation.py answer, so that a device needs no Python.
#pragma once
#include <string>

#include "artifact.h"
#include "json.h"
#include "json_text.h"

namespace slmc::run {

// Speed and memory as `Measurement` in targets/device/measurement.py.
void measure(const std::string& folder, const JsonValue& request, JsonText* json);
// Losses and best tokens as `Evaluation` in targets/device/evaluation.py.
void evaluate(const std::string& folder, const JsonValue& request, JsonText* json);

// Answers a job named 'measurement', 'evaluation' or 'probed'; errors are part of the document.
void answer(const std::string& kind);

// Answers calls until stdin ends, of one opened artifact: int32 words, the number of tokens and the tokens themselves, 0
// to begin a text anew. Every call gets its logits float32 [T, V] behind the number T x V; -1 and the text of an error
// behind its length. The first answer, unasked, is the width V.
void serve(Artifact* artifact);

// The ids, int32, of a text on stdin by a tokenizer.json.
void encode_stdin(const std::string& tokenizer);

std::vector<int32_t> token_list(const JsonValue& list);
std::string all_of_stdin();

}  // namespace slmc::run
