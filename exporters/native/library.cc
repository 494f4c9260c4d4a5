// The library's entry point for ONNX Runtime: adds the domain ai.slmc with all its operators to a session's options.
#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "elementary.h"
#include "registration.h"

namespace {

using namespace slmc;

// A runtime below 1.27 takes one function body per name. So each further body of an operator has a numbered name
// ("QLinear_2"), and the kernel serves all of them. How many a graph has, a host says with this session option; without
// it there are kUsualBodies. A name takes about 20 KB and 0.03 ms of a session.
constexpr const char* kBodiesOption = "ai.slmc.bodies";
constexpr size_t kUsualBodies = 16, kMostBodies = 1024;

size_t bodies_of(const ort::SessionOptions* options) {
  char text[16] = "";
  size_t size = sizeof text;
  if (ort::Status* status = api().GetSessionConfigEntry(options, kBodiesOption, text, &size)) {
    api().ReleaseStatus(status);
    return kUsualBodies;
  }
  return static_cast<size_t>(std::clamp(std::strtoll(text, nullptr, 10), 1LL, static_cast<long long>(kMostBodies)));
}

// Names 1 to `bodies` of every operator that needs them; built once, sessions of the whole process share them.
std::vector<const ort::CustomOp*> operators(size_t bodies) {
  static std::mutex lock;
  static std::vector<std::vector<const ort::CustomOp*>> by_number;
  const std::lock_guard<std::mutex> held(lock);
  std::vector<const ort::CustomOp*> found;
  for (size_t number = 1; number <= bodies; ++number) {
    if (by_number.size() < number) {
      std::vector<const ort::CustomOp*>& made = by_number.emplace_back();
      for (const Operator& description : all_operators())
        if (number == 1)
          made.push_back(registered(description, description.name));
        else if (description.many_bodies)
          made.push_back(registered(description, std::string(description.name) + "_" + std::to_string(number)));
    }
    found.insert(found.end(), by_number[number - 1].begin(), by_number[number - 1].end());
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
  for (const ort::CustomOp* op : operators(bodies_of(options)))
    if (ort::Status* status = api().CustomOpDomain_Add(domain, op)) return status;
  return api().AddCustomOpDomain(options, domain);
}
