// The part of ONNX Runtime's C interface that a custom operator needs, declared by us: no wheel ships the header.
//
// OrtApi is a table of functions that only ever grows at its end, so a slot is known by its index for good.
// API 24 is the lowest that has all of these; a library built for it runs on every later ONNX Runtime.
#pragma once
#include <cstddef>
#include <cstdint>

#include "operator.h"

namespace slmc::ort {

constexpr uint32_t kApiVersion = 24;
constexpr uint32_t kCustomOpVersion = 18;  // that knows the fields of CustomOp below

struct Status;
struct SessionOptions;
struct Domain;
struct Value;
struct TensorInfo;
struct KernelInfo;
struct KernelContext;
struct ShapeContext;
struct Attribute;

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2 };
enum AttributeType : int { kInt = 1 };

// X(name, slot, return type, parameters)
#define SLMC_ORT_SLOTS(X)                                                                            \
  X(CreateStatus, 0, Status*, (ErrorCode, const char*))                                              \
  X(GetErrorMessage, 2, const char*, (const Status*))                                                \
  X(CreateCustomOpDomain, 26, Status*, (const char*, Domain**))                                      \
  X(CustomOpDomain_Add, 27, Status*, (Domain*, const struct CustomOp*))                              \
  X(AddCustomOpDomain, 28, Status*, (SessionOptions*, Domain*))                                      \
  X(GetTensorMutableData, 51, Status*, (Value*, void**))                                             \
  X(CreateTensorTypeAndShapeInfo, 57, Status*, (TensorInfo**))                                       \
  X(SetTensorElementType, 58, Status*, (TensorInfo*, ElementType))                                   \
  X(SetDimensions, 59, Status*, (TensorInfo*, const int64_t*, size_t))                               \
  X(GetDimensionsCount, 61, Status*, (const TensorInfo*, size_t*))                                   \
  X(GetDimensions, 62, Status*, (const TensorInfo*, int64_t*, size_t))                               \
  X(GetSymbolicDimensions, 63, Status*, (const TensorInfo*, const char**, size_t))                   \
  X(KernelInfoGetAttribute_float, 85, Status*, (const KernelInfo*, const char*, float*))             \
  X(KernelInfoGetAttribute_int64, 86, Status*, (const KernelInfo*, const char*, int64_t*))           \
  X(KernelInfoGetAttribute_string, 87, Status*, (const KernelInfo*, const char*, char*, size_t*))    \
  X(KernelContext_GetInput, 90, Status*, (const KernelContext*, size_t, const Value**))              \
  X(KernelContext_GetOutput, 91, Status*, (KernelContext*, size_t, const int64_t*, size_t, Value**)) \
  X(ReleaseStatus, 93, void, (Status*))                                                              \
  X(ReleaseTensorTypeAndShapeInfo, 99, void, (TensorInfo*))                                          \
  X(GetSessionConfigEntry, 238, Status*, (const SessionOptions*, const char*, char*, size_t*))       \
  X(KernelInfoGetConstantInput_tensor, 249, Status*, (const KernelInfo*, size_t, int*, const Value**)) \
  X(ShapeInferContext_GetInputTypeShape, 268, Status*, (const ShapeContext*, size_t, TensorInfo**))  \
  X(ShapeInferContext_GetAttribute, 269, Status*, (const ShapeContext*, const char*, const Attribute**)) \
  X(ShapeInferContext_SetOutputTypeShape, 270, Status*, (const ShapeContext*, size_t, const TensorInfo*)) \
  X(SetSymbolicDimensions, 271, Status*, (TensorInfo*, const char**, size_t))                        \
  X(ReadOpAttr, 272, Status*, (const Attribute*, AttributeType, void*, size_t, size_t*))             \
  X(KernelContext_ParallelFor, 274, Status*, (const KernelContext*, void (*)(void*, size_t), size_t, size_t, void*)) \
  X(GetTensorElementTypeAndShapeDataReference, 414, Status*, (const Value*, ElementType*, const int64_t**, size_t*))

enum Slot : int {
#define SLMC_ORT_INDEX(name, slot, result, parameters) kSlot##name = slot,
  SLMC_ORT_SLOTS(SLMC_ORT_INDEX)
#undef SLMC_ORT_INDEX
};

// The functions by name, read once from the runtime's table.
struct Api {
#define SLMC_ORT_MEMBER(name, slot, result, parameters) result(*name) parameters;
  SLMC_ORT_SLOTS(SLMC_ORT_MEMBER)
#undef SLMC_ORT_MEMBER

  explicit Api(const void* const* table)
      :
#define SLMC_ORT_READ(name, slot, result, parameters) \
  name(reinterpret_cast<result(*) parameters>(const_cast<void*>(table[slot]))),
        SLMC_ORT_SLOTS(SLMC_ORT_READ)
#undef SLMC_ORT_READ
            table_(table) {
  }

 private:
  const void* const* table_;
};

struct ApiBase {
  const void* const* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

// One operator as the runtime sees it: 26 fields in this order.
struct CustomOp {
  uint32_t version;
  void* (*CreateKernel)(const CustomOp*, const void* api, const KernelInfo*);
  const char* (*GetName)(const CustomOp*);
  const char* (*GetExecutionProviderType)(const CustomOp*);
  ElementType (*GetInputType)(const CustomOp*, size_t index);
  size_t (*GetInputTypeCount)(const CustomOp*);
  ElementType (*GetOutputType)(const CustomOp*, size_t index);
  size_t (*GetOutputTypeCount)(const CustomOp*);
  void (*KernelCompute)(void* kernel, KernelContext*);
  void (*KernelDestroy)(void* kernel);
  Presence (*GetInputCharacteristic)(const CustomOp*, size_t index);
  Presence (*GetOutputCharacteristic)(const CustomOp*, size_t index);
  int (*GetInputMemoryType)(const CustomOp*, size_t index);
  int (*GetVariadicInputMinArity)(const CustomOp*);
  int (*GetVariadicInputHomogeneity)(const CustomOp*);
  int (*GetVariadicOutputMinArity)(const CustomOp*);
  int (*GetVariadicOutputHomogeneity)(const CustomOp*);
  Status* (*CreateKernelV2)(const CustomOp*, const void* api, const KernelInfo*, void** kernel);
  Status* (*KernelComputeV2)(void* kernel, KernelContext*);
  Status* (*InferOutputShape)(const CustomOp*, ShapeContext*);
  int (*GetStartVersion)(const CustomOp*);
  int (*GetEndVersion)(const CustomOp*);
  size_t (*GetMayInplace)(int** inputs, int** outputs);
  void (*ReleaseMayInplace)(int* inputs, int* outputs);
  size_t (*GetAliasMap)(int** inputs, int** outputs);
  void (*ReleaseAliasMap)(int* inputs, int* outputs);
};
static_assert(sizeof(CustomOp) == 26 * sizeof(void*), "the runtime counts 26 fields");

}  // namespace slmc::ort
