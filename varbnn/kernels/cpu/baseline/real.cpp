// Real activations in plain C++: sums of ±x, the sign applied to the float's own sign bit.
#include <cstring>

#include "../finish.h"

namespace varbnn {
namespace baseline {
namespace {

constexpr int64_t ROWS = 4;

// Rows side by side: input k of row r at k * rows + r.
void prepare(const float* values, int64_t stride, int64_t rows, int64_t inputs, float* prepared) {
  const int64_t padded = ceil_div(inputs, WORD) * WORD;
  for (int64_t k = 0; k < inputs; ++k)
    for (int64_t r = 0; r < rows; ++r) prepared[k * rows + r] = values[r * stride + k];
  for (int64_t i = inputs * rows; i < padded * rows; ++i) prepared[i] = 0;
}

inline float flipped(float value, uint32_t sign) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits ^= sign;
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

template <int R>
void rows_of(const RealTile& t) {
  for (int64_t b = 0; b < t.blocks; ++b) {
    const uint32_t* weight = t.weight + b * t.block_stride;
    float* sums = t.sums + b * BLOCK;
    float total[R][BLOCK] = {};
    if (!t.first)
      for (int r = 0; r < R; ++r) std::memcpy(total[r], sums + r * t.sums_stride, sizeof total[r]);
    for (int64_t j = 0; j < t.words; ++j, weight += BLOCK) {
      const float* x = t.prepared + j * WORD * R;
      for (int i = 0; i < WORD; ++i) {
        uint32_t sign[BLOCK];
        for (int o = 0; o < BLOCK; ++o) sign[o] = (~weight[o] >> i) << 31;
        for (int r = 0; r < R; ++r)
          for (int o = 0; o < BLOCK; ++o) total[r][o] += flipped(x[i * R + r], sign[o]);
      }
    }
    for (int r = 0; r < R; ++r) std::memcpy(sums + r * t.sums_stride, total[r], sizeof total[r]);
  }
}

void multiply(const RealTile& t) {
  switch (t.rows) {
    case 1: return rows_of<1>(t);
    case 2: return rows_of<2>(t);
    case 3: return rows_of<3>(t);
    default: return rows_of<4>(t);
  }
}

}  // namespace

extern const RealKernel REAL = {ROWS, WORD, prepare, multiply, finish_real};

}  // namespace baseline
}  // namespace varbnn
