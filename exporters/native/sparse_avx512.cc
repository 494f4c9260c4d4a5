// Products with sparse matrices in tiles of 16 rows on AVX-512.
#include "sparse_shared-inl.h"
#include "kernels.h"
#include "patterns_avx512.h"
#include "vector_avx512.h"

namespace slmc::avx512 {
namespace {

struct WithPatterns : Vector {
  static void decode_patterns(const PatternTable& table, const uint8_t* fields, int64_t units, uint8_t* masks) {
    wide_decode_patterns(table, fields, units, masks);
  }
};

}  // namespace

const SparseKernels tiles = sparse_kernels_of<WithPatterns>();

}  // namespace slmc::avx512
