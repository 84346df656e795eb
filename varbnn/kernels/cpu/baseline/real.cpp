// Real activations in plain C++: sums of ±x, the sign applied to the float's own sign bit.
#include "../finish.h"
#include "quads.h"

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

// R rows times V vectors of outputs, beginning at `output`.
template <int R, int V>
inline void tile(const RealTile& t, int64_t output) {
  const uint32_t* weight = t.weight + output / BLOCK * t.block_stride + output % BLOCK;
  const float* prepared = t.prepared;
  float* sums = t.sums + output;
  Floats total[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v)
      total[r][v] = t.first ? Floats{} : load<Floats>(sums + r * t.sums_stride + v * LANES);
  for (int64_t j = 0; j < t.words; ++j, weight += BLOCK) {
    Bits minus[V];  // the bit of the next input in front, set where the weight is -1
    for (int v = 0; v < V; ++v) minus[v] = ~load<Bits>(weight + v * LANES);
    for (int i = 0; i < WORD; ++i, prepared += R)
      for (int v = 0; v < V; ++v) {
        const Bits sign = minus[v] << 31;
        minus[v] >>= 1;
        for (int r = 0; r < R; ++r) {
          const float x = prepared[r];
          total[r][v] += Floats(Bits(Floats{x, x, x, x}) ^ sign);
        }
      }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(sums + r * t.sums_stride + v * LANES, total[r][v]);
}

template <int R, int V>
void rows_of(const RealTile& t) {
  for (int64_t output = 0; output < t.blocks * BLOCK; output += V * LANES) tile<R, V>(t, output);
}

void multiply(const RealTile& t) {
  switch (t.rows) {
    case 1: return rows_of<1, 4>(t);
    case 2: return rows_of<2, 2>(t);
    case 3: return rows_of<3, 2>(t);
    default: return rows_of<4, 2>(t);
  }
}

int64_t size(int64_t rows) { return rows * WORD; }

}  // namespace

extern const RealKernel REAL = {ROWS, size, prepare, multiply, finish_real};

}  // namespace baseline
}  // namespace varbnn
