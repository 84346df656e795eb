// Plain C++ that a compiler vectorises: the prepared form of real activations is what they are.
#include <cstring>

#include "../finish.h"
#include "../softmax.h"
#include "../taps.h"

namespace varbnn {
namespace baseline {
namespace {

void prepare(const float* values, int64_t count, float* prepared) {
  const int64_t filled = ceil_div(count, WORD) * WORD;
  std::memcpy(prepared, values, static_cast<size_t>(count) * sizeof(float));
  std::memset(prepared + count, 0, static_cast<size_t>(filled - count) * sizeof(float));
}

// Adds or subtracts 32 activations to 16 outputs: a clear bit flips the sign of what is added.
inline void add_word(const float* __restrict values, const uint32_t* __restrict words, float* __restrict sums) {
  for (int i = 0; i < WORD; ++i) {
    uint32_t value;
    std::memcpy(&value, values + i, sizeof value);
    for (int r = 0; r < BLOCK; ++r) {
      const uint32_t flip = (~static_cast<uint32_t>(words[r]) >> i) << 31;
      const uint32_t bits = value ^ flip;
      float term;
      std::memcpy(&term, &bits, sizeof term);
      sums[r] += term;
    }
  }
}

void multiply(const Taps<float>& taps, const Blocks& blocks, float* sums, int64_t stride) {
  for (int64_t b = 0; b < blocks.count; ++b)
    for (int row = 0; row < taps.rows; ++row) {
      float acc[BLOCK] = {};
      for (int64_t t = 0; t < taps.count; ++t) {
        const float* values = taps.at[t * taps.rows + row];
        const uint32_t* words = blocks.words + b * blocks.stride + taps.offset[t];
        for (int64_t j = 0; j < taps.words; ++j) add_word(values + j * WORD, words + j * BLOCK, acc);
      }
      std::memcpy(sums + row * stride + b * BLOCK, acc, sizeof acc);
    }
}

inline uint32_t popcount(uint32_t x) {
  x -= (x >> 1) & 0x55555555u;
  x = (x & 0x33333333u) + ((x >> 2) & 0x33333333u);
  x = (x + (x >> 4)) & 0x0f0f0f0fu;
  return (x * 0x01010101u) >> 24;
}

void multiply_signs(const Taps<uint32_t>& taps, const int32_t* valid, const Blocks& blocks, float* sums,
                    int64_t stride) {
  for (int64_t b = 0; b < blocks.count; ++b)
    for (int row = 0; row < taps.rows; ++row) {
      int64_t counted = -taps.unused;
      uint32_t unequal[BLOCK] = {};
      for (int64_t t = 0; t < taps.count; ++t) {
        if (!valid[t * taps.rows + row]) continue;
        counted += taps.words * WORD;
        const uint32_t* signs = taps.at[t * taps.rows + row];
        const uint32_t* words = blocks.words + b * blocks.stride + taps.offset[t];
        for (int64_t j = 0; j < taps.words; ++j)
          for (int r = 0; r < BLOCK; ++r) unequal[r] += popcount(signs[j] ^ words[j * BLOCK + r]);
      }
      for (int r = 0; r < BLOCK; ++r)
        sums[row * stride + b * BLOCK + r] = static_cast<float>(counted - 2 * static_cast<int64_t>(unequal[r]));
    }
}

}  // namespace

extern const TapKernel TAPS = {WORD, 8, prepare, multiply, multiply_signs, finish_real, softmax_row};

}  // namespace baseline
}  // namespace varbnn
