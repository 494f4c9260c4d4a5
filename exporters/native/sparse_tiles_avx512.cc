// Products with sparse matrices in tiles of 16 rows on AVX-512 with VNNI, VBMI and VBMI2.
#include "avx512_patterns.h"
#include "avx512_vector.h"
#include "shared_tiles_body.h"

namespace slmc {
namespace {

// What products with sparse matrices ask for beside others.
struct Avx512Sparse : Avx512 {
  // a where mask has ones, else b.
  static SLMC_INLINE I choose(I mask, I a, I b) { return _mm512_ternarylogic_epi32(mask, a, b, 0xca); }
  // table[index % 128] of every byte; where fewer bits count, the table repeats
  template <int bits>
  static SLMC_INLINE I look_up(const uint8_t* table, I index) {
    if constexpr (bits < 7) return _mm512_permutexvar_epi8(index, load(table));
    else return _mm512_permutex2var_epi8(load(table), index, load(table + 64));
  }
  // Four periods of activations: pick gives every lane that of each period which the byte's low bits say.
  template <int period>
  struct Block {
    I x;
    explicit SLMC_INLINE Block(const int8_t* q)
        : x(period == 4 ? _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)))
                        : _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(q)))) {}
    SLMC_INLINE I pick(I places) const {
      const I first = _mm512_set1_epi32(period == 4 ? 0x0c080400 : 0x18100800);
      const I from = _mm512_ternarylogic_epi32(places, _mm512_set1_epi8(period - 1), first, 0xea);  // (a & b) | c
      return period == 4 ? _mm512_shuffle_epi8(x, from) : _mm512_permutexvar_epi8(from, x);
    }
  };
  // Words that two rows share, r and r + 8: to the right by n, for the latter by 4 more.
  template <int n>
  static SLMC_INLINE I paired(const uint8_t* p) {
    const I both = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    constexpr int a = n & 31, b = (n + 4) & 31;
    return _mm512_rorv_epi32(both, _mm512_setr_epi32(a, a, a, a, a, a, a, a, b, b, b, b, b, b, b, b));
  }
  static void decode_patterns(const PatternTable& table, const uint8_t* fields, int64_t units, uint8_t* masks) {
    wide_decode_patterns(table, fields, units, masks);
  }
  // The activations of 64 that a mask of 8 bytes keeps, one after another, `count` of them; adds them to the lanes of
  // sum. A store over the end of a line is slow to be read again, and so are two at once.
  static SLMC_INLINE I gather(const int8_t* q, const uint8_t* mask, int64_t count, int8_t* out, I sum) {
    uint64_t places;
    std::memcpy(&places, mask, sizeof places);
    const I kept = _mm512_maskz_compress_epi8(places, load(q));
    if (count > 32) store(out, kept);
    else _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_castsi512_si256(kept));
    return dot<8>(sum, ones(), kept);
  }
};

}  // namespace

const SparseKernels& avx512_sparse_tile_kernels() {
  static constexpr SparseKernels kernels = sparse_kernels_of<Avx512Sparse>();
  return kernels;
}

}  // namespace slmc
