// Real activations by tables, AVX-512: the 16 possible sums ±a±b±c±d of four activations are one register; four bits of
// a weight word pick from it. One permutation and one addition do four multiply-adds of 16 outputs.
#include <immintrin.h>

#include "../finish.h"

namespace varbnn {
namespace avx512 {
namespace {

constexpr int64_t ROWS = 4;
constexpr int TABLES = 8;  // of a word

// ±1 by bit `i` of the lane's number.
inline __m512 signs(int i) {
  alignas(64) float s[BLOCK];
  for (int lane = 0; lane < BLOCK; ++lane) s[lane] = lane >> i & 1 ? 1.0f : -1.0f;
  return _mm512_load_ps(s);
}

// The table of four activations; fused with ±1 a product is exact, so each step is one rounded sum.
inline __m512 table(const float* x, __m512 s0, __m512 s1, __m512 s2, __m512 s3) {
  const __m512 low = _mm512_fmadd_ps(_mm512_set1_ps(x[1]), s1, _mm512_mul_ps(_mm512_set1_ps(x[0]), s0));
  const __m512 high = _mm512_fmadd_ps(_mm512_set1_ps(x[3]), s3, _mm512_mul_ps(_mm512_set1_ps(x[2]), s2));
  return _mm512_add_ps(low, high);
}

// Table q of word j of row r at ((j * TABLES + q) * rows + r) * 16.
void prepare(const float* values, int64_t stride, int64_t rows, int64_t inputs, float* prepared) {
  const __m512 s0 = signs(0), s1 = signs(1), s2 = signs(2), s3 = signs(3);
  const int64_t full = inputs / 4, tables = ceil_div(inputs, WORD) * TABLES;
  for (int64_t q = 0; q < full; ++q)
    for (int64_t r = 0; r < rows; ++r)
      _mm512_store_ps(prepared + (q * rows + r) * BLOCK, table(values + r * stride + 4 * q, s0, s1, s2, s3));
  for (int64_t q = full; q < tables; ++q)
    for (int64_t r = 0; r < rows; ++r) {
      float x[4] = {};
      for (int64_t k = 4 * q; k < inputs; ++k) x[k - 4 * q] = values[r * stride + k];
      _mm512_store_ps(prepared + (q * rows + r) * BLOCK, table(x, s0, s1, s2, s3));
    }
}

// R rows times V blocks. Half of the additions are fused multiply-adds with 1, which round the same and use other
// units of the core.
template <int R, int V>
inline void tile(const RealTile& t, int64_t block, __m512 one) {
  const uint32_t* weight = t.weight + block * t.block_stride;
  const float* prepared = t.prepared;
  float* sums = t.sums + block * BLOCK;
  const int64_t ahead = V * t.block_stride * int64_t(sizeof(uint32_t));
  __m512 total[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v)
      total[r][v] = t.first ? _mm512_setzero_ps() : _mm512_load_ps(sums + r * t.sums_stride + v * BLOCK);
  for (int64_t j = 0; j < t.words; ++j, weight += BLOCK, prepared += TABLES * R * BLOCK) {
    __m512i w[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      w[v] = _mm512_loadu_si512(weight + v * t.block_stride);
      // few rows wait for weights, and the processor does not foresee where the next blocks lie
      if (R < 4) _mm_prefetch(reinterpret_cast<const char*>(weight + v * t.block_stride) + ahead, _MM_HINT_T0);
    }
#pragma GCC unroll 8
    for (int q = 0; q < TABLES; ++q) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512 sixteen = _mm512_load_ps(prepared + (q * R + r) * BLOCK);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) {
          const __m512 four = _mm512_permutexvar_ps(w[v], sixteen);
          total[r][v] = (r + v + q) & 1 ? _mm512_fmadd_ps(four, one, total[r][v]) : _mm512_add_ps(total[r][v], four);
        }
      }
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) w[v] = _mm512_srli_epi32(w[v], 4);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) _mm512_store_ps(sums + r * t.sums_stride + v * BLOCK, total[r][v]);
}

// As many times V blocks as there are, and what is left by halves.
template <int R, int V>
inline void from_block(const RealTile& t, int64_t block, __m512 one) {
  for (; block + V <= t.blocks; block += V) tile<R, V>(t, block, one);
  if constexpr (V > 1) from_block<R, V / 2>(t, block, one);
}

template <int R, int V>
void rows_of(const RealTile& t) {
  __m512 one = _mm512_set1_ps(1.0f);
  asm("" : "+v"(one));  // or the compiler would turn the fused multiply-adds back into additions
  from_block<R, V>(t, 0, one);
}

void multiply(const RealTile& t) {
  switch (t.rows) {
    case 1: return rows_of<1, 8>(t);
    case 2: return rows_of<2, 4>(t);
    case 3: return rows_of<3, 4>(t);
    default: return rows_of<4, 4>(t);
  }
}

int64_t size(int64_t rows) { return rows * TABLES * BLOCK; }

}  // namespace

extern const RealKernel REAL = {ROWS, size, prepare, multiply, finish_real};

}  // namespace avx512
}  // namespace varbnn
