// 8-bit activations in plain C++: Σ ±x = 2 Σ (x where the weight is +1) - Σ x.
#include "../finish.h"
#include "quads.h"

namespace varbnn {
namespace baseline {
namespace {

constexpr int64_t ROWS = 4;
constexpr int SLOTS = WORD + 1;  // of a word: its inputs and, last, minus their sum

// Slot i of word j of row r at (j * SLOTS + i) * rows + r.
void prepare(const int8_t* values, int64_t stride, int64_t rows, int64_t inputs, int32_t* prepared) {
  for (int64_t j = 0; j * WORD < inputs; ++j)
    for (int64_t r = 0; r < rows; ++r) {
      int32_t* to = prepared + j * SLOTS * rows + r;
      int32_t sum = 0;
      for (int64_t i = 0; i < WORD; ++i) {
        const int32_t x = j * WORD + i < inputs ? values[r * stride + j * WORD + i] : 0;
        to[i * rows] = 2 * x;
        sum += x;
      }
      to[WORD * rows] = -sum;
    }
}

// R rows times V vectors of outputs, beginning at `output`.
template <int R, int V>
inline void tile(const Int8Tile& t, int64_t output) {
  const uint32_t* weight = t.weight + output / BLOCK * t.block_stride + output % BLOCK;
  const int32_t* prepared = t.prepared;
  int32_t* sums = t.sums + output;
  Whole total[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v)
      total[r][v] = t.first ? Whole{} : load<Whole>(sums + r * t.sums_stride + v * LANES);
  for (int64_t j = 0; j < t.words; ++j, weight += BLOCK, prepared += R) {
    Bits w[V];
    for (int v = 0; v < V; ++v) w[v] = load<Bits>(weight + v * LANES);
    for (int i = 0; i < WORD; ++i, prepared += R)
      for (int v = 0; v < V; ++v) {
        const Whole plus = Whole(w[v] << 31) >> 31;  // all ones where the weight is +1
        w[v] >>= 1;
        for (int r = 0; r < R; ++r) total[r][v] += prepared[r] & plus;
      }
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) total[r][v] += prepared[r];
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(sums + r * t.sums_stride + v * LANES, total[r][v]);
}

template <int R, int V>
void rows_of(const Int8Tile& t) {
  for (int64_t output = 0; output < t.blocks * BLOCK; output += V * LANES) tile<R, V>(t, output);
}

void multiply(const Int8Tile& t) {
  switch (t.rows) {
    case 1: return rows_of<1, 4>(t);
    case 2: return rows_of<2, 2>(t);
    case 3: return rows_of<3, 2>(t);
    default: return rows_of<4, 2>(t);
  }
}

int64_t size(int64_t rows) { return rows * SLOTS; }

}  // namespace

extern const Int8Kernel INT8 = {ROWS, size, prepare, multiply, finish_int8};

}  // namespace baseline
}  // namespace varbnn
