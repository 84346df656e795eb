// Real activations by tables, AVX2: the 8 possible sums ±a±b±c of three activations are one register; three bits of a
// weight word pick from it. Ten tables of three inputs and one of two make a word.
#include <immintrin.h>

#include "../finish.h"

namespace varbnn {
namespace avx2 {
namespace {

constexpr int64_t ROWS = 4;
constexpr int TABLES = 11;  // of a word
constexpr int LANES = 8;

// Table q of word j of row r at ((j * TABLES + q) * rows + r) * 8.
void prepare(const float* values, int64_t stride, int64_t rows, int64_t inputs, float* prepared) {
  const __m256 s0 = _mm256_setr_ps(-1, 1, -1, 1, -1, 1, -1, 1);
  const __m256 s1 = _mm256_setr_ps(-1, -1, 1, 1, -1, -1, 1, 1);
  const __m256 s2 = _mm256_setr_ps(-1, -1, -1, -1, 1, 1, 1, 1);
  for (int64_t j = 0; j * WORD < inputs; ++j)
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t left = inputs - j * WORD;
      float x[TABLES * 3] = {};
      std::memcpy(x, values + r * stride + j * WORD, (left < WORD ? left : WORD) * sizeof(float));
      for (int q = 0; q < TABLES; ++q) {
        __m256 sums = _mm256_mul_ps(_mm256_set1_ps(x[3 * q]), s0);  // products with ±1 are exact
        sums = _mm256_fmadd_ps(_mm256_set1_ps(x[3 * q + 1]), s1, sums);
        sums = _mm256_fmadd_ps(_mm256_set1_ps(x[3 * q + 2]), s2, sums);
        _mm256_store_ps(prepared + ((j * TABLES + q) * rows + r) * LANES, sums);
      }
    }
}

// R rows times V blocks. Half of the additions are fused multiply-adds with 1, which round the same and use other
// units of the core.
template <int R, int V>
inline void tile(const RealTile& t, int64_t block, __m256 one) {
  const uint32_t* weight = t.weight + block * t.block_stride;
  const float* prepared = t.prepared;
  float* sums = t.sums + block * BLOCK;
  __m256 total[R][2 * V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < 2 * V; ++v)
      total[r][v] = t.first ? _mm256_setzero_ps() : _mm256_load_ps(sums + r * t.sums_stride + v * LANES);
  for (int64_t j = 0; j < t.words; ++j, weight += BLOCK, prepared += TABLES * R * LANES) {
    __m256i w[2 * V];
#pragma GCC unroll 8
    for (int v = 0; v < 2 * V; ++v)
      w[v] = _mm256_loadu_si256(
          reinterpret_cast<const __m256i*>(weight + v / 2 * t.block_stride + v % 2 * LANES));
#pragma GCC unroll 11
    for (int q = 0; q < TABLES; ++q) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m256 eight = _mm256_load_ps(prepared + (q * R + r) * LANES);
#pragma GCC unroll 8
        for (int v = 0; v < 2 * V; ++v) {
          const __m256 three = _mm256_permutevar8x32_ps(eight, w[v]);
          total[r][v] =
              (r + v + q) & 1 ? _mm256_fmadd_ps(three, one, total[r][v]) : _mm256_add_ps(total[r][v], three);
        }
      }
#pragma GCC unroll 8
      for (int v = 0; v < 2 * V; ++v) w[v] = _mm256_srli_epi32(w[v], 3);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < 2 * V; ++v) _mm256_store_ps(sums + r * t.sums_stride + v * LANES, total[r][v]);
}

template <int R, int V>
void rows_of(const RealTile& t) {
  __m256 one = _mm256_set1_ps(1.0f);
  asm("" : "+x"(one));  // or the compiler would turn the fused multiply-adds back into additions
  int64_t block = 0;
  for (; block + V <= t.blocks; block += V) tile<R, V>(t, block, one);
  for (; block < t.blocks; ++block) tile<R, 1>(t, block, one);
}

void multiply(const RealTile& t) {
  switch (t.rows) {
    case 1: return rows_of<1, 3>(t);
    case 2: return rows_of<2, 2>(t);
    case 3: return rows_of<3, 1>(t);
    default: return rows_of<4, 1>(t);
  }
}

int64_t size(int64_t rows) { return rows * TABLES * LANES; }

}  // namespace

extern const RealKernel REAL = {ROWS, size, prepare, multiply, finish_real};

}  // namespace avx2
}  // namespace varbnn
