// ONNX Runtime as a host of the operators, in terms of its C interface.
#include <algorithm>
#include <atomic>

#include "registration.h"

namespace slmc {
namespace {

std::atomic<const ort::Api*> runtime{nullptr};

// Raises the runtime's own error as ours.
void check(ort::Status* status, const char* doing) {
  if (!status) return;
  const std::string text = std::string(doing) + ": " + api().GetErrorMessage(status);
  api().ReleaseStatus(status);
  throw Refusal(text);
}

class OwnedInfo {
 public:
  ~OwnedInfo() {
    if (info) api().ReleaseTensorTypeAndShapeInfo(info);
  }
  ort::TensorInfo* info = nullptr;
};

Tensor view(const ort::Value* value) {
  Tensor tensor;
  if (!value) return tensor;
  ElementType type;
  const int64_t* dims = nullptr;
  check(api().GetTensorElementTypeAndShapeDataReference(value, &type, &dims, &tensor.shape.rank), "reading a shape");
  if (tensor.shape.rank > kMaxRank) throw Refusal("tensors of more than 8 dimensions are not supported");
  std::copy(dims, dims + tensor.shape.rank, tensor.shape.dims);
  void* data = nullptr;
  check(api().GetTensorMutableData(const_cast<ort::Value*>(value), &data), "reading data");
  static const char empty = 0;  // an empty tensor may have no bytes, but it is there
  tensor.data = data ? data : &empty;
  tensor.type = type;
  return tensor;
}

class OrtNode final : public Node {
 public:
  explicit OrtNode(const ort::KernelInfo* info) : info_(info) {}

  bool constant(size_t index, Tensor* out) const override {
    int is_constant = 0;
    const ort::Value* value = nullptr;
    check(api().KernelInfoGetConstantInput_tensor(info_, index, &is_constant, &value), "reading a constant");
    if (!is_constant || !value) return false;
    *out = view(value);
    return true;
  }

 private:
  bool read_integer(const char* attribute, int64_t* out) const override {
    return found(api().KernelInfoGetAttribute_int64(info_, attribute, out));
  }
  bool read_number(const char* attribute, float* out) const override {
    return found(api().KernelInfoGetAttribute_float(info_, attribute, out));
  }
  bool read_text(const char* attribute, std::string* out) const override {
    size_t size = 0;
    if (!found(api().KernelInfoGetAttribute_string(info_, attribute, nullptr, &size)) || size == 0) return false;
    std::string text(size, '\0');
    if (!found(api().KernelInfoGetAttribute_string(info_, attribute, text.data(), &size))) return false;
    text.resize(size - 1);  // less the zero behind it
    *out = std::move(text);
    return true;
  }
  static bool found(ort::Status* status) {
    if (status) api().ReleaseStatus(status);
    return !status;
  }

  const ort::KernelInfo* info_;
};

class OrtCall final : public Call {
 public:
  explicit OrtCall(ort::KernelContext* context) : context_(context) {}

  Tensor input(size_t index) const override { return view(value(index)); }

  const void* data(size_t index) const override {
    const ort::Value* known = value(index);
    void* data = nullptr;
    if (known) check(api().GetTensorMutableData(const_cast<ort::Value*>(known), &data), "reading data");
    return data;
  }

  void* output(size_t index, const Shape& shape) const override {
    ort::Value* value = nullptr;
    check(api().KernelContext_GetOutput(context_, index, shape.dims, shape.rank, &value), "making an output");
    void* data = nullptr;
    check(api().GetTensorMutableData(value, &data), "reading an output");
    return data;
  }

 private:
  const ort::Value* value(size_t index) const {
    const ort::Value* value = nullptr;
    check(api().KernelContext_GetInput(context_, index, &value), "reading an input");
    return value;
  }
  void run_parallel(size_t tasks, void (*run)(void*, size_t), void* data) const override {
    check(api().KernelContext_ParallelFor(context_, run, tasks, 0, data), "running in parallel");
  }

  ort::KernelContext* context_;
};

class OrtInference final : public Inference {
 public:
  explicit OrtInference(ort::ShapeContext* context) : context_(context) {}

  SymbolicShape input(size_t index) const override {
    ort::TensorInfo* info = nullptr;  // owned by the context
    check(api().ShapeInferContext_GetInputTypeShape(context_, index, &info), "inferring from an input");
    size_t rank = 0;
    check(api().GetDimensionsCount(info, &rank), "inferring a rank");
    SymbolicShape shape{std::vector<int64_t>(rank), std::vector<const char*>(rank)};
    check(api().GetDimensions(info, shape.dims.data(), rank), "inferring dimensions");
    check(api().GetSymbolicDimensions(info, shape.symbols.data(), rank), "inferring symbols");
    return shape;
  }

  int64_t integer(const char* attribute) const override {
    const ort::Attribute* value = nullptr;
    check(api().ShapeInferContext_GetAttribute(context_, attribute, &value), attribute);
    int64_t out = 0;
    size_t size = 0;
    check(api().ReadOpAttr(value, ort::kInt, &out, sizeof out, &size), attribute);
    return out;
  }

  void output(size_t index, const SymbolicShape& shape, ElementType type) const override {
    for (size_t i = 0; i < shape.dims.size(); ++i)
      if (shape.dims[i] < 0 && (!shape.symbols[i] || !*shape.symbols[i])) return;  // unknown sizes need a name
    OwnedInfo owned;
    check(api().CreateTensorTypeAndShapeInfo(&owned.info), "making a shape");
    check(api().SetTensorElementType(owned.info, type), "setting a type");
    check(api().SetDimensions(owned.info, shape.dims.data(), shape.dims.size()), "setting dimensions");
    std::vector<const char*> symbols = shape.symbols;
    for (const char*& symbol : symbols) symbol = symbol ? symbol : "";
    check(api().SetSymbolicDimensions(owned.info, symbols.data(), symbols.size()), "setting symbols");
    check(api().ShapeInferContext_SetOutputTypeShape(context_, index, owned.info), "inferring an output");
  }

 private:
  ort::ShapeContext* context_;
};

// A custom operator's callbacks receive the operator itself, so ours follows the runtime's part.
struct Registered : ort::CustomOp {
  Operator description;
  std::string name;
};

const Operator& described(const ort::CustomOp* op) { return static_cast<const Registered*>(op)->description; }

ort::Status* refused(const char* text) { return api().CreateStatus(ort::kInvalidArgument, text); }

// No exception may cross into the runtime.
template <typename Body>
ort::Status* guarded(const Body& body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception& error) {
    return refused(error.what());
  } catch (...) {
    return refused("an unknown error");
  }
}

ort::Status* create_kernel(const ort::CustomOp* op, const void*, const ort::KernelInfo* info, void** kernel) {
  return guarded([&] {
    const Operator& description = described(op);
    try {
      *kernel = description.create(OrtNode(info)).release();
    } catch (const Refusal& refusal) {
      throw Refusal(std::string(kDomain) + "." + description.name + ": " + refusal.what());
    }
  });
}

ort::Status* compute(void* kernel, ort::KernelContext* context) {
  return guarded([&] { static_cast<Kernel*>(kernel)->compute(OrtCall(context)); });
}

ort::Status* infer(const ort::CustomOp* op, ort::ShapeContext* context) {
  return guarded([&] { described(op).infer(OrtInference(context)); });
}

}  // namespace

const ort::Api& api() { return *runtime.load(std::memory_order_acquire); }

void set_runtime(const ort::Api* known) { runtime.store(known, std::memory_order_release); }

ort::CustomOp* registered(Operator description, std::string name) {
  auto* op = new Registered{};
  op->version = ort::kCustomOpVersion;
  op->GetName = [](const ort::CustomOp* o) { return static_cast<const Registered*>(o)->name.c_str(); };
  op->GetExecutionProviderType = [](const ort::CustomOp*) -> const char* { return nullptr; };
  op->GetInputType = [](const ort::CustomOp* o, size_t i) { return described(o).input(i)->type; };
  op->GetInputTypeCount = [](const ort::CustomOp* o) { return described(o).inputs.size(); };
  op->GetOutputType = [](const ort::CustomOp* o, size_t i) { return described(o).output(i)->type; };
  op->GetOutputTypeCount = [](const ort::CustomOp* o) { return described(o).outputs.size(); };
  op->KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  op->GetInputCharacteristic = [](const ort::CustomOp* o, size_t i) { return described(o).inputs[i].presence; };
  op->GetOutputCharacteristic = [](const ort::CustomOp* o, size_t i) { return described(o).outputs[i].presence; };
  op->GetInputMemoryType = [](const ort::CustomOp*, size_t) { return 0; };
  op->GetVariadicInputMinArity = op->GetVariadicOutputMinArity = [](const ort::CustomOp*) { return 1; };
  op->GetVariadicInputHomogeneity = op->GetVariadicOutputHomogeneity = [](const ort::CustomOp*) { return 0; };
  op->CreateKernelV2 = create_kernel;
  op->KernelComputeV2 = compute;
  op->InferOutputShape = infer;
  op->GetStartVersion = [](const ort::CustomOp*) { return 1; };
  op->GetEndVersion = [](const ort::CustomOp*) { return 1; };
  op->description = std::move(description);
  op->name = std::move(name);
  return op;
}

}  // namespace slmc
