// Activations of 8 bits in plain C++.
#include <cstring>

#include "../finish.h"

namespace varbnn {
namespace avx2 {
namespace {

constexpr int64_t ROWS = 4;

// Rows side by side: input k of row r at k * rows + r.
void prepare(const int8_t* values, int64_t stride, int64_t rows, int64_t inputs, int16_t* prepared) {
  const int64_t padded = ceil_div(inputs, WORD) * WORD;
  for (int64_t k = 0; k < inputs; ++k)
    for (int64_t r = 0; r < rows; ++r) prepared[k * rows + r] = values[r * stride + k];
  for (int64_t i = inputs * rows; i < padded * rows; ++i) prepared[i] = 0;
}

template <int R>
void rows_of(const Int8Tile& t) {
  for (int64_t b = 0; b < t.blocks; ++b) {
    const uint32_t* weight = t.weight + b * t.block_stride;
    int32_t* sums = t.sums + b * BLOCK;
    int32_t total[R][BLOCK] = {};
    if (!t.first)
      for (int r = 0; r < R; ++r) std::memcpy(total[r], sums + r * t.sums_stride, sizeof total[r]);
    for (int64_t j = 0; j < t.words; ++j, weight += BLOCK) {
      const int16_t* x = t.prepared + j * WORD * R;
      for (int i = 0; i < WORD; ++i) {
        int32_t minus[BLOCK];  // -1 where the weight is -1, else 0; (x ^ -1) - -1 = -x
        for (int o = 0; o < BLOCK; ++o) minus[o] = int32_t((weight[o] >> i) & 1) - 1;
        for (int r = 0; r < R; ++r)
          for (int o = 0; o < BLOCK; ++o) total[r][o] += (x[i * R + r] ^ minus[o]) - minus[o];
      }
    }
    for (int r = 0; r < R; ++r) std::memcpy(sums + r * t.sums_stride, total[r], sizeof total[r]);
  }
}

void multiply(const Int8Tile& t) {
  switch (t.rows) {
    case 1: return rows_of<1>(t);
    case 2: return rows_of<2>(t);
    case 3: return rows_of<3>(t);
    default: return rows_of<4>(t);
  }
}

}  // namespace

extern const Int8Kernel INT8 = {ROWS, WORD, prepare, multiply, finish_int8};

}  // namespace avx2
}  // namespace varbnn
