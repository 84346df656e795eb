#include "sampling_tile.h"

namespace varbnn {
namespace {

// Two lanes in the compiler's own vectors: whatever the machine has.
struct Portable {
  typedef uint64_t vec __attribute__((vector_size(16)));
  using Lanes = Vectors<16>;
  static constexpr int LANES = 2;
  static constexpr int ROWS = 1;

  static vec splat(uint32_t word) { return vec{word, word}; }
  static vec counters(uint32_t first) { return vec{first, first + 2u}; }
  static vec mul(vec a, vec b) { return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu); }
  static vec high(vec a) { return a >> 32; }
  static vec flip(vec a, vec b, vec c) { return a ^ b ^ c; }
  static void store(uint32_t* words, vec even, vec odd) {
    for (int i = 0; i < LANES; ++i) {
      words[2 * i] = static_cast<uint32_t>(even[i]);
      words[2 * i + 1] = static_cast<uint32_t>(odd[i]);
    }
  }

  static bool compare(const vec c[2][4], const uint16_t* lower, uint32_t bits[4]) {
    bool close = false;
    for (int w = 0; w < 4; ++w) {
      uint32_t words[2 * LANES];
      store(words, c[0][w], c[1][w]);
      bits[w] = 0;
      for (int i = 0; i < 4 * LANES; ++i) {
        const uint32_t upper = (words[i / 2] >> (16 * (i % 2))) & 0xFFFF, bound = lower[32 * w + i];
        bits[w] |= static_cast<uint32_t>(upper >= bound) << i;
        close |= ((upper - bound) & 0xFFFF) <= REACH;
      }
    }
    return close;
  }


  using Floats = Lanes::Floats;
  static Floats madd(Floats a, Floats b, Floats c) { return a * b + c; }
  static Floats clamp(Floats y) {  // a NaN becomes 20
    const Floats above = y < 20.0f ? y : (Floats{} + 20.0f);
    return above > -20.0f ? above : (Floats{} - 20.0f);
  }
  static Floats reciprocal(Floats x) { return 1.0f / x; }

  static void expand(uint32_t word, float* signs, int count) {
    const int end = count < 32 ? count : 32;
    for (int i = 0; i < end; ++i) signs[i] = (word >> i) & 1u ? 1.0f : -1.0f;
  }
};

}  // namespace

namespace baseline {

bool sample_tile(const SignTile& tile, const Stream& stream, uint32_t first, int64_t count, uint32_t* blocks,
                 int64_t stride) {
  return sample_tile_with<Portable>(tile, stream, first, count, blocks, stride);
}

void draw_tile(const SignTile& tile, const Stream& stream, uint32_t sample, float* signs) {
  draw_tile_with<Portable>(tile, stream, sample, signs);
}

}  // namespace baseline
}  // namespace varbnn
