// The library's entry point for ONNX Runtime: adds the domain ai.slmc with all its operators to a session's options.
#include "elementary.h"
#include "registration.h"

namespace {

using namespace slmc;

// Built once; sessions of the whole process share it.
const std::vector<ort::CustomOp*>& operators() {
  static const std::vector<ort::CustomOp*> all = [] {
    std::vector<ort::CustomOp*> made;
    for (const Operator& description : all_operators()) made.push_back(registered(description));
    return made;
  }();
  return all;
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
  for (const ort::CustomOp* op : operators())
    if (ort::Status* status = api().CustomOpDomain_Add(domain, op)) return status;
  return api().AddCustomOpDomain(options, domain);
}
