// For the tests: runs any graph on inputs from stdin and writes its outputs to stdout, request after request.
//
// Request:  model bytes; inputs, each name, type, shape, data; names of outputs. Lengths are 64-bit before what they
// count. Answer: 1 and every output's type, shape and data, or 0 and the error. The first argument is how many threads.
// A length of -1 in the place of the model's: tokenizer.json and a text; its ids and the text of those are answered.
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "run/network.h"
#include "run/tokenizer.h"

namespace {

using namespace slmc;
using namespace slmc::run;

bool read_bytes(void* to, size_t size) { return std::fread(to, 1, size, stdin) == size; }

int64_t read_integer() {
  int64_t value = 0;
  if (!read_bytes(&value, sizeof value)) std::exit(0);
  return value;
}

// Aligned for every type.
struct Bytes {
  std::unique_ptr<uint8_t[]> data;
  size_t size = 0;
};

Bytes read_block(int64_t size) {
  Bytes bytes;
  bytes.size = static_cast<size_t>(size);
  bytes.data.reset(new uint8_t[bytes.size + 1]);
  if (!read_bytes(bytes.data.get(), bytes.size)) std::exit(0);
  return bytes;
}
Bytes read_block() { return read_block(read_integer()); }

std::string read_text() {
  const Bytes bytes = read_block();
  return std::string(reinterpret_cast<const char*>(bytes.data.get()), bytes.size);
}

void write_bytes(const void* data, size_t size) { std::fwrite(data, 1, size, stdout); }
void write_integer(int64_t value) { write_bytes(&value, sizeof value); }

void write_block(const void* data, size_t size) {
  write_integer(static_cast<int64_t>(size));
  write_bytes(data, size);
}

struct Input {
  std::string name;
  int type;
  Shape shape;
  Bytes data;
};

struct Request {
  Bytes model;
  std::vector<Input> inputs;
  std::vector<std::string> outputs;
};

Request read_request(int64_t size) {
  Request request{read_block(size), {}, {}};
  for (int64_t left = read_integer(); left > 0; --left) {
    Input input{read_text(), static_cast<int>(read_integer()), {}, {}};
    for (int64_t rank = read_integer(); rank > 0; --rank) {
      const int64_t size = read_integer();
      if (input.shape.rank < kMaxRank) input.shape.dims[input.shape.rank++] = size;
    }
    input.data = read_block();
    request.inputs.push_back(std::move(input));
  }
  for (int64_t left = read_integer(); left > 0; --left) request.outputs.push_back(read_text());
  return request;
}

void answer(const Request& request, int threads) {
  const ModelRecord model = read_model({request.model.data.get(), request.model.size}, {}, "none");
  Network network(model, {}, threads);
  for (const Input& input : request.inputs) {
    if (bytes_of(input.shape, input.type) != input.data.size) throw Refusal("an input of the wrong size");
    network.feed(input.name, input.type, input.shape, input.data.data.get());
  }
  network.run_fed();
  for (const std::string& name : request.outputs) network.value(name);
  write_integer(1);
  for (const std::string& name : request.outputs) {
    const Tensor& tensor = network.value(name);
    write_integer(network.type_of(name));
    write_integer(static_cast<int64_t>(tensor.shape.rank));
    write_bytes(tensor.shape.dims, tensor.shape.rank * sizeof(int64_t));
    write_block(tensor.data, bytes_of(tensor.shape, network.type_of(name)));
  }
}

void answer_tokens(const std::string& json, const std::string& text) {
  const Tokenizer tokenizer(json);
  const std::vector<int32_t> ids = tokenizer.encode(text, false);
  const std::string decoded = tokenizer.decode(ids);
  write_integer(1);
  write_block(ids.data(), ids.size() * sizeof ids[0]);
  write_block(decoded.data(), decoded.size());
}

}  // namespace

int main(int count, char** arguments) {
  const int threads = count > 1 ? std::atoi(arguments[1]) : 1;
  for (;;) {
    const int64_t size = read_integer();
    const std::string json = size < 0 ? read_text() : "", text = size < 0 ? read_text() : "";
    const Request request = size < 0 ? Request{} : read_request(size);
    try {
      if (size < 0) answer_tokens(json, text);
      else answer(request, threads);
    } catch (const std::exception& error) {
      const std::string refusal = error.what();
      write_integer(0);
      write_block(refusal.data(), refusal.size());
    }
    std::fflush(stdout);
  }
}
