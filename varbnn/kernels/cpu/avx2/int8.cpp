// 8-bit activations by tables, AVX2: as for real ones, with two rows in each 32-bit number, a + 2^16 b. Whole numbers
// add without carrying over for as long as both sums stay below 2^15.
#include <immintrin.h>

#include "../finish.h"

namespace varbnn {
namespace avx2 {
namespace {

constexpr int64_t ROWS = 8;
constexpr int TABLES = 11;  // of a word: ten of three inputs, one of two
constexpr int LANES = 8;
constexpr int64_t WORDS_AT_ONCE = 8;  // 8 * 32 sums of at most 127 stay below 2^15

// Table q of word j of rows 2 p and 2 p + 1 at ((j * TABLES + q) * pairs + p) * 8.
void prepare(const int8_t* values, int64_t stride, int64_t rows, int64_t inputs, int32_t* prepared) {
  const __m256i m0 = _mm256_setr_epi32(-1, 1, -1, 1, -1, 1, -1, 1);
  const __m256i m1 = _mm256_setr_epi32(-1, -1, 1, 1, -1, -1, 1, 1);
  const __m256i m2 = _mm256_setr_epi32(-1, -1, -1, -1, 1, 1, 1, 1);
  const int64_t pairs = ceil_div(rows, 2);
  for (int64_t j = 0; j * WORD < inputs; ++j)
    for (int64_t p = 0; p < pairs; ++p) {
      const int64_t left = inputs - j * WORD, count = left < WORD ? left : WORD;
      int32_t x[TABLES * 3] = {};
      const int8_t* row = values + 2 * p * stride + j * WORD;
      for (int64_t k = 0; k < count; ++k) x[k] = row[k];
      if (2 * p + 1 < rows)
        for (int64_t k = 0; k < count; ++k) x[k] += row[stride + k] * 65536;
      for (int q = 0; q < TABLES; ++q) {
        const __m256i a = _mm256_sign_epi32(_mm256_set1_epi32(x[3 * q]), m0);
        const __m256i b = _mm256_sign_epi32(_mm256_set1_epi32(x[3 * q + 1]), m1);
        const __m256i c = _mm256_sign_epi32(_mm256_set1_epi32(x[3 * q + 2]), m2);
        _mm256_store_si256(reinterpret_cast<__m256i*>(prepared + ((j * TABLES + q) * pairs + p) * LANES),
                           _mm256_add_epi32(_mm256_add_epi32(a, b), c));
      }
    }
}

inline void add_to(int32_t* sum, __m256i more, bool fresh) {
  __m256i* place = reinterpret_cast<__m256i*>(sum);
  _mm256_store_si256(place, fresh ? more : _mm256_add_epi32(_mm256_load_si256(place), more));
}

// total + more, in this order: a compiler that sums up all the looked up numbers first has no registers for them.
inline __m256i plus(__m256i total, __m256i more) {
  __m256i sum = _mm256_add_epi32(total, more);
  asm("" : "+x"(sum));
  return sum;
}

// P pairs of rows times V blocks over words `start` to `end`, at most WORDS_AT_ONCE.
template <int P, int V>
inline void tile(const Int8Tile& t, int64_t block, int64_t start, int64_t end) {
  const uint32_t* weight = t.weight + block * t.block_stride + start * BLOCK;
  const int32_t* prepared = t.prepared + start * TABLES * P * LANES;
  __m256i total[P][2 * V];
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
    for (int v = 0; v < 2 * V; ++v) total[p][v] = _mm256_setzero_si256();
  for (int64_t j = start; j < end; ++j, weight += BLOCK, prepared += TABLES * P * LANES) {
    __m256i w[2 * V];
#pragma GCC unroll 8
    for (int v = 0; v < 2 * V; ++v)
      w[v] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weight + v / 2 * t.block_stride + v % 2 * LANES));
#pragma GCC unroll 11
    for (int q = 0; q < TABLES; ++q) {
#pragma GCC unroll 8
      for (int p = 0; p < P; ++p) {
        const __m256i eight = _mm256_load_si256(reinterpret_cast<const __m256i*>(prepared + (q * P + p) * LANES));
#pragma GCC unroll 8
        for (int v = 0; v < 2 * V; ++v)
          total[p][v] = plus(total[p][v], _mm256_permutevar8x32_epi32(eight, w[v]));
      }
#pragma GCC unroll 8
      for (int v = 0; v < 2 * V; ++v) w[v] = _mm256_srli_epi32(w[v], 3);
    }
  }
  const bool fresh = t.first && start == 0;
#pragma GCC unroll 8
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 8
    for (int v = 0; v < 2 * V; ++v) {
      int32_t* sum = t.sums + 2 * p * t.sums_stride + block * BLOCK + v * LANES;
      const __m256i lower = _mm256_srai_epi32(_mm256_slli_epi32(total[p][v], 16), 16);
      add_to(sum, lower, fresh);
      if (2 * p + 1 < t.rows)
        add_to(sum + t.sums_stride, _mm256_srai_epi32(_mm256_sub_epi32(total[p][v], lower), 16), fresh);
    }
}

template <int P, int V>
void pairs_of(const Int8Tile& t) {
  int64_t block = 0;
  auto blocks_at = [&](auto run, int count) {
    for (; block + count <= t.blocks; block += count)
      for (int64_t start = 0; start < t.words; start += WORDS_AT_ONCE)
        run(t, block, start, start + WORDS_AT_ONCE < t.words ? start + WORDS_AT_ONCE : t.words);
  };
  blocks_at(tile<P, V>, V);
  blocks_at(tile<P, 1>, 1);
}

void multiply(const Int8Tile& t) {
  switch (ceil_div(t.rows, 2)) {
    case 1: return pairs_of<1, 3>(t);
    case 2: return pairs_of<2, 2>(t);
    case 3: return pairs_of<3, 1>(t);
    default: return pairs_of<4, 1>(t);
  }
}

int64_t size(int64_t rows) { return ceil_div(rows, 2) * TABLES * LANES; }

}  // namespace

extern const Int8Kernel INT8 = {ROWS, size, prepare, multiply, finish_int8};

}  // namespace avx2
}  // namespace varbnn
