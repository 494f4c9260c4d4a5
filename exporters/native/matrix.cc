// Decoding of stored rows, and the memory of a call.
#include "matrix.h"

#include <new>

#include "elementary.h"

namespace slmc {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kSmallestBlock = size_t{1} << 16;

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kPieceByPiece = true;  // what is read or written beyond a piece shall be seen
#else
constexpr bool kPieceByPiece = false;
#endif

size_t aligned(size_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

// `bits` codes of a whole plane into bytes, added where `shift` puts them.
template <int bits>
void unpack_plane(const uint8_t* plane, int64_t bytes, int shift, bool add, uint8_t* out) {
  constexpr int per_byte = 8 / bits, mask = (1 << bits) - 1;
  for (int64_t i = 0; i < bytes; ++i)
    for (int j = 0; j < per_byte; ++j) {
      const int code = ((plane[i] >> (j * bits)) & mask) << shift;
      out[i * per_byte + j] = static_cast<uint8_t>(add ? out[i * per_byte + j] | code : code);
    }
}

void unpack(const uint8_t* plane, int bits, int64_t bytes, int shift, bool add, uint8_t* out) {
  switch (bits) {
    case 1: return unpack_plane<1>(plane, bytes, shift, add, out);
    case 2: return unpack_plane<2>(plane, bytes, shift, add, out);
    case 4: return unpack_plane<4>(plane, bytes, shift, add, out);
    default: return unpack_plane<8>(plane, bytes, shift, add, out);
  }
}

// `count` bytes (whole words) of row n of a plane, from byte `offset` of the row on; `row_bytes` of the whole row.
void copy_row(const QMatrix& m, const uint8_t* plane, int64_t row_bytes, int64_t n, int64_t offset, int64_t count,
              uint8_t* out) {
  if (n >= m.tiled) {
    std::memcpy(out, plane + n * row_bytes + offset, count);
    return;
  }
  const uint8_t* in = plane + n / kTile * kTile * row_bytes + offset * kTile + n % kTile * 4;
  for (int64_t i = 0; i < count; i += 4) std::memcpy(out + i, in + i * kTile, 4);
}

}  // namespace

void decode_row(const QMatrix& m, int64_t n, int64_t count, float* row) {
  constexpr int64_t kPiece = 256;
  const int low = low_bits(m.bits), high = high_bits(m.bits);
  uint8_t packed[kPiece], codes[kPiece];
  for (int64_t g = 0; g * m.group < count; ++g) {
    const int64_t at = m.factor_at(n, g);
    const float scale = half_to_float(m.scales[at]);
    const float zero = m.zeros ? m.zeros[at] : m.centre();
    const int64_t end = (g + 1) * m.group;
    for (int64_t k = g * m.group; k < end && k < count; k += kPiece) {
      const int64_t length = k + kPiece < end ? kPiece : end - k;
      const int64_t wanted = k + length < count ? length : count - k;
      copy_row(m, m.codes, m.row_bytes(), n, k * low / 8, length * low / 8, packed);
      unpack(packed, low, length * low / 8, 0, false, codes);
      if (high) {
        copy_row(m, m.high, m.high_row_bytes(), n, k * high / 8, length * high / 8, packed);
        unpack(packed, high, length * high / 8, low, true, codes);
      }
      if (m.steps)
        for (int64_t i = 0; i < wanted; ++i) row[k + i] = static_cast<float>(m.steps[codes[i]]) * scale;
      else
        for (int64_t i = 0; i < wanted; ++i) row[k + i] = (static_cast<float>(codes[i]) - zero) * scale;
    }
  }
}

// A full arena keeps only its newest block: the call that outgrew the older ones still uses them, the next does not.
void* Arena::bytes(size_t size) {
  if (!kPieceByPiece) size = aligned(size);
  if (used_ == 0) {
    while (newest_ && newest_->next) {
      Block* older = newest_->next;
      newest_->next = older->next;
      ::operator delete(older, std::align_val_t{kAlignment});
    }
  }
  if (kPieceByPiece || !newest_ || used_ + size > newest_->size) {
    size_t capacity = size;  // of a piece alone, which may be nothing
    if (!kPieceByPiece)
      for (capacity = newest_ ? 2 * newest_->size : kSmallestBlock; capacity < size;) capacity *= 2;
    auto* block = static_cast<Block*>(::operator new(kAlignment + capacity, std::align_val_t{kAlignment}));
    *block = {newest_, capacity};
    newest_ = block;
    used_ = 0;
  }
  void* piece = reinterpret_cast<char*>(newest_) + kAlignment + used_;
  used_ += size ? size : kAlignment;
  return piece;
}

float* thread_floats(int64_t count) {
  static thread_local Arena arena;
  arena.reset();
  return arena.take<float>(count);
}

Arena::~Arena() {
  while (newest_) {
    Block* next = newest_->next;
    ::operator delete(newest_, std::align_val_t{kAlignment});
    newest_ = next;
  }
}

}  // namespace slmc
