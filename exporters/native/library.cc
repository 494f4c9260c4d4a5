// The library's entry point for ONNX Runtime: adds the domain ai.slmc with all its operators to a session's options.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "elementary.h"
#include "registration.h"

namespace {

using namespace slmc;

// A runtime below 1.27 takes one function body per name. So each further body of an operator has a numbered name
// ("QLinear_2"), and the kernel serves all of them. How many a graph has, a host says with these session options, of
// fused nodes apart, which have one for every mix of formats; without them there are kUsualBodies. A name takes about
// 20 KB and 0.03 ms of a session.
constexpr const char *kBodiesOption = "ai.slmc.bodies", *kFusedOption = "ai.slmc.fused", *kFused = "Fused";
constexpr size_t kUsualBodies = 16, kMostBodies = 1024;

size_t bodies_of(const ort::SessionOptions* options, const char* option) {
  char text[16] = "";
  size_t size = sizeof text;
  if (ort::Status* status = api().GetSessionConfigEntry(options, option, text, &size)) {
    api().ReleaseStatus(status);
    return kUsualBodies;
  }
  return static_cast<size_t>(std::clamp(std::strtoll(text, nullptr, 10), 1LL, static_cast<long long>(kMostBodies)));
}

// The operator under its number-th name; built once, sessions of the whole process share them.
const ort::CustomOp* numbered(const Operator& description, size_t number) {
  static std::mutex lock;
  static std::map<std::string, const ort::CustomOp*> made;
  const std::lock_guard<std::mutex> held(lock);
  const std::string name = number == 1 ? description.name : std::string(description.name) + "_" + std::to_string(number);
  const ort::CustomOp*& op = made[name];
  if (!op) op = registered(description, name);
  return op;
}

std::vector<const ort::CustomOp*> operators(size_t bodies, size_t fused) {
  std::vector<const ort::CustomOp*> found;
  for (const Operator& description : all_operators()) {
    const size_t names = !description.many_bodies ? 1 : std::strcmp(description.name, kFused) == 0 ? fused : bodies;
    for (size_t number = 1; number <= names; ++number) found.push_back(numbered(description, number));
  }
  return found;
}

}  // namespace

extern "C" SLMC_EXPORT ort::Status* RegisterCustomOps(ort::SessionOptions* options,
                                                                                const ort::ApiBase* base) {
  const void* const* table = base->GetApi(ort::kApiVersion);
  if (!table) {  // an older runtime's table is shorter, but slot 0 is the same in all
    using CreateStatus = ort::Status* (*)(ort::ErrorCode, const char*);
    const auto refuse = reinterpret_cast<CreateStatus>(const_cast<void*>(base->GetApi(1)[ort::kSlotCreateStatus]));
    return refuse(ort::kFail, "ai.slmc needs ONNX Runtime 1.24 or later");
  }
  static const ort::Api functions(table);
  set_runtime(&functions);
  ort::Domain* domain = nullptr;  // kept: sessions outlive this call
  if (ort::Status* status = api().CreateCustomOpDomain(kDomain, &domain)) return status;
  for (const ort::CustomOp* op : operators(bodies_of(options, kBodiesOption), bodies_of(options, kFusedOption)))
    if (ort::Status* status = api().CustomOpDomain_Add(domain, op)) return status;
  return api().AddCustomOpDomain(options, domain);
}
