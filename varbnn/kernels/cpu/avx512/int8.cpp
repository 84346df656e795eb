// 8-bit activations by tables, AVX-512: the 16 possible sums of four activations as 16-bit numbers. A register holds the
// tables of two groups of four inputs, 16 inputs apart: the lower halves of the weights' lanes look up the first, the
// upper halves the second, told apart by the fifth bit of the index.
#include <immintrin.h>

#include <cstring>

#include "../finish.h"

namespace varbnn {
namespace avx512 {
namespace {

constexpr int64_t ROWS = 4;
constexpr int TABLES = 4;                          // of a word: inputs 0-3, 8-11, 4-7, 12-15, each with those 16 further
constexpr int FIRST_INPUT[TABLES] = {0, 8, 4, 12};  // the order in which two shifts bring the nibbles down
constexpr int64_t WORDS_AT_ONCE = 16;              // 64 sums of at most 4 * 127 stay below 2^15

// Table p of word j of row r at ((j * TABLES + p) * rows + r) * 16 numbers of 32 bits.
void prepare(const int8_t* values, int64_t stride, int64_t rows, int64_t inputs, int32_t* prepared) {
  __m512i pick[TABLES][4];  // lane -> which input of the word
  __mmask32 minus[4] = {};  // lanes where input i of a group counts -1
  for (int i = 0; i < 4; ++i) {
    for (int lane = 0; lane < 32; ++lane) minus[i] |= __mmask32(~lane >> i & 1) << lane;
    for (int p = 0; p < TABLES; ++p) {
      alignas(64) int16_t lanes[32];
      for (int lane = 0; lane < 32; ++lane) lanes[lane] = int16_t(FIRST_INPUT[p] + i + lane / 16 * 16);
      pick[p][i] = _mm512_load_si512(lanes);
    }
  }
  for (int64_t j = 0; j * WORD < inputs; ++j)
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t left = inputs - j * WORD;
      const __mmask32 present = left < WORD ? (1u << left) - 1 : ~0u;
      const __m512i x = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(present, values + r * stride + j * WORD));
      for (int p = 0; p < TABLES; ++p) {
        __m512i sums = _mm512_setzero_si512();
        for (int i = 0; i < 4; ++i) {
          const __m512i one = _mm512_permutexvar_epi16(pick[p][i], x);
          sums = _mm512_mask_sub_epi16(_mm512_add_epi16(sums, one), minus[i], sums, one);
        }
        _mm512_store_si512(prepared + ((j * TABLES + p) * rows + r) * BLOCK, sums);
      }
    }
}

// total + more, in this order: a compiler that sums up all the looked up numbers first has no registers for them.
inline __m512i plus(__m512i total, __m512i more) {
  __m512i sum = _mm512_add_epi16(total, more);
  asm("" : "+v"(sum));
  return sum;
}

// R rows times V blocks over words `start` to `end`, at most WORDS_AT_ONCE.
template <int R, int V>
inline void tile(const Int8Tile& t, int64_t block, int64_t start, int64_t end) {
  const __m512i nibbles = _mm512_set1_epi32(0x0f0f0f0f), upper = _mm512_set1_epi32(0x10100000);
  const uint32_t* weight = t.weight + block * t.block_stride + start * BLOCK;
  const int32_t* prepared = t.prepared + start * TABLES * R * BLOCK;
  __m512i total[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) total[r][v] = _mm512_setzero_si512();
  for (int64_t j = start; j < end; ++j, weight += BLOCK, prepared += TABLES * R * BLOCK) {
    __m512i index[V], odd[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      const __m512i w = _mm512_loadu_si512(weight + v * t.block_stride);
      index[v] = _mm512_ternarylogic_epi32(w, nibbles, upper, 0xea);  // (w & nibbles) | upper
      odd[v] = _mm512_ternarylogic_epi32(_mm512_srli_epi32(w, 4), nibbles, upper, 0xea);
    }
#pragma GCC unroll 4
    for (int p = 0; p < TABLES; ++p) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const __m512i table = _mm512_load_si512(prepared + (p * R + r) * BLOCK);
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v)
          total[r][v] = plus(total[r][v], _mm512_permutexvar_epi16(index[v], table));
      }
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) index[v] = p == 1 ? odd[v] : _mm512_srli_epi16(index[v], 8);
    }
  }
  const __m512i ones = _mm512_set1_epi16(1);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      int32_t* sum = t.sums + block * BLOCK + r * t.sums_stride + v * BLOCK;
      const __m512i both = _mm512_madd_epi16(total[r][v], ones);  // lower plus upper half
      _mm512_store_si512(sum, t.first && start == 0 ? both : _mm512_add_epi32(_mm512_load_si512(sum), both));
    }
}

template <int R, int V>
void from_block(const Int8Tile& t, int64_t block) {
  for (; block + V <= t.blocks; block += V)
    for (int64_t start = 0; start < t.words; start += WORDS_AT_ONCE)
      tile<R, V>(t, block, start, start + WORDS_AT_ONCE < t.words ? start + WORDS_AT_ONCE : t.words);
  if constexpr (V > 1) from_block<R, V / 2>(t, block);
}

void multiply(const Int8Tile& t) {
  switch (t.rows) {
    case 1: return from_block<1, 8>(t, 0);
    case 2: return from_block<2, 4>(t, 0);
    case 3: return from_block<3, 4>(t, 0);
    default: return from_block<4, 4>(t, 0);
  }
}

int64_t size(int64_t rows) { return rows * TABLES * BLOCK; }

}  // namespace

extern const Int8Kernel INT8 = {ROWS, size, prepare, multiply, finish_int8};

}  // namespace avx512
}  // namespace varbnn
