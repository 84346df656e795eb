// Real activations, NEON: fused multiply-adds with ±1, which are rounded sums. (A table of floats does not fit: NEON
// looks up single bytes.)
#include <arm_neon.h>

#include "../finish.h"

namespace varbnn {
namespace neon {
namespace {

constexpr int64_t ROWS = 4;
constexpr int LANES = 4;

// Rows side by side: input k of row r at k * rows + r.
void prepare(const float* values, int64_t stride, int64_t rows, int64_t inputs, float* prepared) {
  const int64_t padded = ceil_div(inputs, WORD) * WORD;
  for (int64_t k = 0; k < inputs; ++k)
    for (int64_t r = 0; r < rows; ++r) prepared[k * rows + r] = values[r * stride + k];
  for (int64_t i = inputs * rows; i < padded * rows; ++i) prepared[i] = 0;
}

// R rows times one block.
template <int R>
void rows_of(const RealTile& t) {
  constexpr int V = BLOCK / LANES;
  const uint32x4_t sign_bit = vdupq_n_u32(0x80000000u), one = vdupq_n_u32(0x3f800000u);
  for (int64_t block = 0; block < t.blocks; ++block) {
    const uint32_t* weight = t.weight + block * t.block_stride;
    const float* prepared = t.prepared;
    float* sums = t.sums + block * BLOCK;
    float32x4_t total[R][V];
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v)
        total[r][v] = t.first ? vdupq_n_f32(0) : vld1q_f32(sums + r * t.sums_stride + v * LANES);
    for (int64_t j = 0; j < t.words; ++j, weight += BLOCK) {
      uint32x4_t minus[V];  // the bit of the next input in front, set where the weight is -1
      for (int v = 0; v < V; ++v) minus[v] = vmvnq_u32(vld1q_u32(weight + v * LANES));
      for (int i = 0; i < WORD; ++i, prepared += R)
        for (int v = 0; v < V; ++v) {
          const float32x4_t sign = vreinterpretq_f32_u32(vorrq_u32(vandq_u32(vshlq_n_u32(minus[v], 31), sign_bit), one));
          minus[v] = vshrq_n_u32(minus[v], 1);
          for (int r = 0; r < R; ++r) total[r][v] = vfmaq_n_f32(total[r][v], sign, prepared[r]);
        }
    }
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) vst1q_f32(sums + r * t.sums_stride + v * LANES, total[r][v]);
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

int64_t size(int64_t rows) { return rows * WORD; }

}  // namespace

extern const RealKernel REAL = {ROWS, size, prepare, multiply, finish_real};

}  // namespace neon
}  // namespace varbnn
