// A stand-in for the C++ INT8 engine of SymbolicLight (arXiv 2606.03026), which is not public: written by us from its
// published design alone. Products that spikes feed keep int8 column-major and add the columns of spikes as integers, one
// scale per output at the end; all other products keep int8 row-major, one scale per row, and multiply float32 inputs
// with widened weights by AVX2 and FMA. Embedding, norms and key-value cache are float32.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <vector>

namespace {

using Floats = std::vector<float>;

struct Reader {
  FILE* file;
  template <typename T>
  std::vector<T> take(size_t count) {
    std::vector<T> out(count);
    if (std::fread(out.data(), sizeof(T), count, file) != count) throw 1;
    return out;
  }
};

struct Matrix {  // [rows, cols], stored by rows or by columns
  int rows, cols;
  std::vector<int8_t> codes;
  Floats scales;
  Matrix(Reader& in, int rows, int cols)
      : rows(rows), cols(cols), codes(in.take<int8_t>(size_t(rows) * cols)), scales(in.take<float>(rows)) {}

  void multiply(const float* x, float* y) const {
#pragma omp parallel for schedule(static)
    for (int r = 0; r < rows; r += 4) {
      const int8_t* w = codes.data() + size_t(r) * cols;
      __m256 sums[4][2];
      for (auto& sum : sums) sum[0] = sum[1] = _mm256_setzero_ps();
      for (int k = 0; k < cols; k += 16)
        for (int h = 0; h < 2; ++h) {
          const __m256 in = _mm256_loadu_ps(x + k + 8 * h);
          for (int i = 0; i < 4; ++i) {
            const auto* from = reinterpret_cast<const __m128i*>(w + size_t(i) * cols + k + 8 * h);
            sums[i][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from))), in, sums[i][h]);
          }
        }
      for (int i = 0; i < 4; ++i) {
        alignas(32) float part[8];
        _mm256_store_ps(part, _mm256_add_ps(sums[i][0], sums[i][1]));
        float all = 0;
        for (float value : part) all += value;
        y[r + i] = all * scales[r + i];
      }
    }
  }

  void add_columns(const std::vector<int>& spikes, float* y) const {
    constexpr int kPart = 256;
#pragma omp parallel for schedule(static)
    for (int first = 0; first < rows; first += kPart) {
      int32_t sums[kPart] = {};
      const int count = std::min(kPart, rows - first);
      for (int k : spikes) {
        const int8_t* column = codes.data() + size_t(k) * rows + first;
        for (int i = 0; i < count; ++i) sums[i] += column[i];
      }
      for (int i = 0; i < count; ++i) y[first + i] = float(sums[i]) * scales[first + i];
    }
  }
};

struct Norm {
  Floats weight, bias;
  Norm(Reader& in, int size) : weight(in.take<float>(size)), bias(in.take<float>(size)) {}
  void apply(float* x) const {
    const int size = int(weight.size());
    float mean = 0, square = 0;
    for (int i = 0; i < size; ++i) mean += x[i];
    mean /= size;
    for (int i = 0; i < size; ++i) square += (x[i] - mean) * (x[i] - mean);
    const float factor = 1 / std::sqrt(square / size + 1e-5f);
    for (int i = 0; i < size; ++i) x[i] = (x[i] - mean) * factor * weight[i] + bias[i];
  }
};

struct Sizes {
  int32_t vocabulary, width, layers, heads, hidden, bottleneck, window, anchors;
};

float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

struct Block {
  Floats decay, gate;
  Matrix tcam, q, k, v, out;
  Norm norm;
  Matrix up, down;
  Norm after;
  Floats average, keys, values;
  std::vector<char> present;
  Block(Reader& in, const Sizes& s)
      : decay(in.take<float>(s.heads)), gate(in.take<float>(1)), tcam(in, s.width, s.width), q(in, s.width, s.width),
        k(in, s.width, s.width), v(in, s.width, s.width), out(in, s.width, s.width), norm(in, s.width),
        up(in, s.hidden, s.width), down(in, s.width, s.hidden), after(in, s.width), average(s.width) {}
};

struct Engine {
  Reader in;
  Sizes s;
  Floats options;  // threshold, leak, theta, weight of the prior
  Floats embedding;
  Norm first;
  std::vector<std::unique_ptr<Block>> blocks;
  Matrix head, narrow, prior;
  Floats membrane;
  int position = 0;
  int64_t spikes_seen[3] = {}, inputs_seen[3] = {};

  explicit Engine(FILE* file)
      : in{file}, s(in.take<Sizes>(1)[0]), options(in.take<float>(4)), embedding(in.take<float>(size_t(s.vocabulary) * s.width)),
        first(in, s.width), blocks(read_blocks()), head(in, s.vocabulary, s.width), narrow(in, s.bottleneck, s.width),
        prior(in, s.vocabulary, s.bottleneck) {
    reset();
  }
  std::vector<std::unique_ptr<Block>> read_blocks() {
    std::vector<std::unique_ptr<Block>> found;
    for (int i = 0; i < s.layers; ++i) found.push_back(std::make_unique<Block>(in, s));
    return found;
  }
  void reset() {
    membrane.assign(s.width, 0);
    position = 0;
    for (auto& block : blocks) {
      std::fill(block->average.begin(), block->average.end(), 0.0f);
      block->keys.clear(), block->values.clear(), block->present.clear();
    }
  }

  std::vector<int> fired(const float* x, int count, int kind) {
    std::vector<int> found;
    for (int i = 0; i < count; ++i)
      if (x[i] >= options[0]) found.push_back(i);
    spikes_seen[kind] += int64_t(found.size()), inputs_seen[kind] += count;
    return found;
  }

  void turn(float* x, int position) const {
    const int size = s.width / s.heads, half = size / 2;
    for (int i = 0; i < half; ++i) {
      const float angle = float(position) * std::pow(options[2], -2.0f * float(i) / float(size));
      const float cos = std::cos(angle), sin = std::sin(angle);
      for (float* at = x; at < x + s.width; at += size) {
        const float a = at[i], b = at[i + half];
        at[i] = a * cos - b * sin, at[i + half] = b * cos + a * sin;
      }
    }
  }

  void attend(const Block& block, const float* query, float* y) const {
    const int size = s.width / s.heads;
    std::vector<int> seen;
    for (int j = 0; j <= position; ++j)
      if ((position - j <= s.window || j < s.anchors) && block.present[j]) seen.push_back(j);
#pragma omp parallel for schedule(static)
    for (int h = 0; h < s.heads; ++h) {
      Floats shares(seen.size());
      float most = -3e38f, sum = 0;
      for (size_t n = 0; n < seen.size(); ++n) {
        const float* key = block.keys.data() + size_t(seen[n]) * s.width + h * size;
        float score = 0;
        for (int i = 0; i < size; ++i) score += query[h * size + i] * key[i];
        shares[n] = score / std::sqrt(float(size));
        most = std::max(most, shares[n]);
      }
      for (float& share : shares) share = std::exp(share - most), sum += share;
      std::fill(y + h * size, y + (h + 1) * size, 0.0f);
      for (size_t n = 0; n < seen.size(); ++n) {
        const float* value = block.values.data() + size_t(seen[n]) * s.width + h * size;
        for (int i = 0; i < size; ++i) y[h * size + i] += shares[n] / sum * value[i];
      }
    }
  }

  void step(int token, float* logits) {
    const int D = s.width;
    Floats x(embedding.begin() + size_t(token) * D, embedding.begin() + size_t(token + 1) * D), z(D), q(D), y(D), hidden(s.hidden);
    first.apply(x.data());
    for (int i = 0; i < D; ++i) membrane[i] = std::min(3.0f, std::max(-3.0f, options[1] * membrane[i] + x[i]));
    std::vector<int> spikes = fired(membrane.data(), D, 0);
    for (int i : spikes) membrane[i] = 0;
    for (auto& each : blocks) {
      Block& block = *each;
      const bool there = !spikes.empty();
      block.present.push_back(there);
      block.tcam.add_columns(spikes, z.data());
      block.q.multiply(x.data(), q.data());
      block.keys.resize(size_t(position + 1) * D), block.values.resize(size_t(position + 1) * D);
      block.k.multiply(x.data(), block.keys.data() + size_t(position) * D);
      block.v.multiply(x.data(), block.values.data() + size_t(position) * D);
      turn(q.data(), position), turn(block.keys.data() + size_t(position) * D, position);
      if (there) attend(block, q.data(), y.data());
      else std::fill(y.begin(), y.end(), 0.0f);
      const float gate = sigmoid(block.gate[0]);
      for (int i = 0; i < D; ++i) {
        const float kept = sigmoid(block.decay[i / (D / s.heads)]);
        block.average[i] = kept * block.average[i] + (1 - kept) * z[i];
        y[i] = gate * y[i] + (1 - gate) * block.average[i];
      }
      block.out.multiply(y.data(), z.data());
      for (int i = 0; i < D; ++i) x[i] += z[i];
      block.norm.apply(x.data());
      block.up.multiply(x.data(), hidden.data());
      block.down.add_columns(fired(hidden.data(), s.hidden, 2), z.data());
      for (int i = 0; i < D; ++i) x[i] += z[i];
      block.after.apply(x.data());
      spikes = fired(x.data(), D, 1);
    }
    ++position;
    Floats small(s.bottleneck), more(s.vocabulary);
    head.multiply(x.data(), logits);
    narrow.multiply(x.data(), small.data());
    for (float& value : small) value *= 0.5f * (1 + std::erf(value * 0.70710678f));
    prior.multiply(small.data(), more.data());
    for (int i = 0; i < s.vocabulary; ++i) logits[i] += options[3] * more[i];
  }
};

}  // namespace

extern "C" {
void* standin_open(const char* path) {
  FILE* file = std::fopen(path, "rb");
  if (!file) return nullptr;
  try {
    return new Engine(file);
  } catch (int) {
    return nullptr;
  }
}
void standin_reset(void* engine) { static_cast<Engine*>(engine)->reset(); }
void standin_step(void* engine, int token, float* logits) { static_cast<Engine*>(engine)->step(token, logits); }
// Shares of inputs that were spikes: of the encoder, between blocks, before ffn.down.
void standin_rates(void* engine, double* rates) {
  auto* of = static_cast<Engine*>(engine);
  for (int i = 0; i < 3; ++i) rates[i] = double(of->spikes_seen[i]) / double(std::max<int64_t>(1, of->inputs_seen[i]));
}
}
