// Four activations make a table of their 16 signed sums, which is exactly one register; four weight bits look up the
// sum of 16 outputs at once. Exact float32: only the order of additions differs from a plain product.

#include <immintrin.h>

#include <cstring>

#include "../finish.h"
#include "../softmax.h"
#include "../taps.h"

namespace varbnn {
namespace avx512 {
namespace {

constexpr int TABLE = 16;               // floats in a table
constexpr int TABLES = WORD / 4;        // in a word
constexpr int ROWS_AT_ONCE = 8;

// ±1 by bit `bit` of the lane's number.
inline __m512 signs(int bit) {
  float lane[16];
  for (int i = 0; i < 16; ++i) lane[i] = i >> bit & 1 ? 1.0f : -1.0f;
  return _mm512_loadu_ps(lane);
}

// Products with ±1 are exact, so that each fused step is one rounded sum.
void tables(const float* values, int64_t count, float* prepared) {
  const __m512 sign[4] = {signs(0), signs(1), signs(2), signs(3)};
  for (int64_t i = 0; i < count; i += 4) {
    const __m512 first = _mm512_mul_ps(_mm512_set1_ps(values[i]), sign[0]);
    const __m512 third = _mm512_mul_ps(_mm512_set1_ps(values[i + 2]), sign[2]);
    const __m512 low = _mm512_fmadd_ps(_mm512_set1_ps(values[i + 1]), sign[1], first);
    const __m512 high = _mm512_fmadd_ps(_mm512_set1_ps(values[i + 3]), sign[3], third);
    _mm512_store_ps(prepared + i * 4, _mm512_add_ps(low, high));
  }
}

void prepare(const float* values, int64_t count, float* prepared) {
  const int64_t whole = count - count % WORD;
  tables(values, whole, prepared);
  if (whole == count) return;
  float last[WORD] = {};
  std::memcpy(last, values + whole, static_cast<size_t>(count - whole) * sizeof(float));
  tables(last, WORD, prepared + whole * 4);
}

// ROWS rows by SIDE blocks, over at least one tap. x + y is written as x * 1 + y, the same number: multiply-adders run
// beside the units that permute and shift, adders would compete with them (twice as fast on Zen 4).
template <int ROWS, int SIDE>
void multiply_some(const Taps<float>& taps, const uint32_t* weights, int64_t block, float* sums, int64_t stride) {
  const __m512 one = _mm512_set1_ps(1.0f);
  const float* const* at = taps.at;
  const int64_t *offset = taps.offset, *const last = offset + taps.count;
  __m512 acc[ROWS][SIDE];
  for (int r = 0; r < ROWS; ++r)
    for (int s = 0; s < SIDE; ++s) acc[r][s] = _mm512_setzero_ps();
  do {
    const float* table[ROWS];
    for (int r = 0; r < ROWS; ++r) table[r] = at[r];
    const uint32_t* line = weights + *offset;
    int64_t left = taps.words;
    do {
      __m512i bits[SIDE];
      for (int s = 0; s < SIDE; ++s) bits[s] = _mm512_loadu_si512(line + s * block);
#pragma GCC unroll 8
      for (int n = 0; n < TABLES; ++n) {
        for (int r = 0; r < ROWS; ++r) {
          const __m512 entries = _mm512_load_ps(table[r] + n * TABLE);
          for (int s = 0; s < SIDE; ++s)
            acc[r][s] = _mm512_fmadd_ps(one, _mm512_permutexvar_ps(bits[s], entries), acc[r][s]);
        }
        for (int s = 0; s < SIDE; ++s) bits[s] = _mm512_srli_epi32(bits[s], 4);
      }
      for (int r = 0; r < ROWS; ++r) table[r] += TABLES * TABLE;
      line += BLOCK;
    } while (--left);
    at += ROWS;
  } while (++offset != last);  // tested at the end, so that gcc keeps all sums in registers
  for (int r = 0; r < ROWS; ++r)
    for (int s = 0; s < SIDE; ++s) _mm512_storeu_ps(sums + r * stride + s * BLOCK, acc[r][s]);
}

// SIDE blocks at a time, then fewer: enough sums at once to hide the latency of an addition.
template <int ROWS, int SIDE>
void multiply_rows(const Taps<float>& taps, Blocks blocks, float* sums, int64_t stride) {
  for (; blocks.count >= SIDE; blocks.count -= SIDE) {
    multiply_some<ROWS, SIDE>(taps, blocks.words, blocks.stride, sums, stride);
    blocks.words += SIDE * blocks.stride;
    sums += SIDE * BLOCK;
  }
  if constexpr (SIDE > 1) multiply_rows<ROWS, SIDE / 2>(taps, blocks, sums, stride);
}

void multiply(const Taps<float>& taps, const Blocks& blocks, float* sums, int64_t stride) {
  if (taps.count == 0) {  // nothing but padding
    for (int r = 0; r < taps.rows; ++r)
      std::memset(sums + r * stride, 0, static_cast<size_t>(blocks.count * BLOCK) * sizeof(float));
    return;
  }
  switch (taps.rows) {
    case 1: return multiply_rows<1, 8>(taps, blocks, sums, stride);
    case 2: return multiply_rows<2, 4>(taps, blocks, sums, stride);
    case 3: return multiply_rows<3, 4>(taps, blocks, sums, stride);
    case 4: return multiply_rows<4, 2>(taps, blocks, sums, stride);
    case 5: return multiply_rows<5, 2>(taps, blocks, sums, stride);
    case 6: return multiply_rows<6, 2>(taps, blocks, sums, stride);
    case 7: return multiply_rows<7, 2>(taps, blocks, sums, stride);
    default: return multiply_rows<8, 2>(taps, blocks, sums, stride);
  }
}

// ROWS rows by SIDE blocks. MASKED: some taps are padding.
template <int ROWS, int SIDE, bool MASKED>
void multiply_signs_some(const Taps<uint32_t>& taps, const int32_t* valid, const uint32_t* weights, int64_t block,
                         const int32_t* counted, float* sums, int64_t stride) {
  __m512i unequal[ROWS][SIDE];
  for (int r = 0; r < ROWS; ++r)
    for (int s = 0; s < SIDE; ++s) unequal[r][s] = _mm512_setzero_si512();
  for (int64_t t = 0; t < taps.count; ++t) {
    const uint32_t* signs[ROWS];
    __m512i here[ROWS];
    for (int r = 0; r < ROWS; ++r) {
      signs[r] = taps.at[t * ROWS + r];
      if (MASKED) here[r] = _mm512_set1_epi32(valid[t * ROWS + r]);
    }
    const uint32_t* line = weights + taps.offset[t];
    for (int64_t j = 0; j < taps.words; ++j, line += BLOCK) {
      __m512i bits[SIDE];
      for (int s = 0; s < SIDE; ++s) bits[s] = _mm512_loadu_si512(line + s * block);
      for (int r = 0; r < ROWS; ++r) {
        const __m512i own = _mm512_set1_epi32(static_cast<int32_t>(signs[r][j]));
        for (int s = 0; s < SIDE; ++s) {
          // 0x28: (a ^ b) & c
          const __m512i differ =
              MASKED ? _mm512_ternarylogic_epi32(bits[s], own, here[r], 0x28) : _mm512_xor_si512(bits[s], own);
          unequal[r][s] = _mm512_add_epi32(unequal[r][s], _mm512_popcnt_epi32(differ));
        }
      }
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int s = 0; s < SIDE; ++s) {
      const __m512i twice = _mm512_slli_epi32(unequal[r][s], 1);
      const __m512i dot = _mm512_sub_epi32(_mm512_set1_epi32(counted[r]), twice);
      _mm512_storeu_ps(sums + r * stride + s * BLOCK, _mm512_cvtepi32_ps(dot));
    }
}

template <int ROWS, bool MASKED>
void multiply_signs_blocks(const Taps<uint32_t>& taps, const int32_t* valid, const Blocks& blocks,
                           const int32_t* counted, float* sums, int64_t stride) {
  const int64_t pairs = blocks.count & ~int64_t(1);
  for (int64_t b = 0; b < pairs; b += 2)
    multiply_signs_some<ROWS, 2, MASKED>(taps, valid, blocks.words + b * blocks.stride, blocks.stride, counted,
                                         sums + b * BLOCK, stride);
  if (pairs < blocks.count)
    multiply_signs_some<ROWS, 1, MASKED>(taps, valid, blocks.words + pairs * blocks.stride, 0, counted,
                                         sums + pairs * BLOCK, stride);
}

template <int ROWS>
void multiply_signs_rows(const Taps<uint32_t>& taps, const int32_t* valid, const Blocks& blocks, float* sums,
                         int64_t stride) {
  int32_t counted[ROWS];
  bool masked = false;
  for (int r = 0; r < ROWS; ++r) {
    int64_t here = 0;
    for (int64_t t = 0; t < taps.count; ++t) here -= valid[t * ROWS + r];
    masked |= here < taps.count;
    counted[r] = static_cast<int32_t>(here * taps.words * WORD - taps.unused);
  }
  if (masked)
    multiply_signs_blocks<ROWS, true>(taps, valid, blocks, counted, sums, stride);
  else
    multiply_signs_blocks<ROWS, false>(taps, valid, blocks, counted, sums, stride);
}

void multiply_signs(const Taps<uint32_t>& taps, const int32_t* valid, const Blocks& blocks, float* sums,
                    int64_t stride) {
  switch (taps.rows) {
    case 1: return multiply_signs_rows<1>(taps, valid, blocks, sums, stride);
    case 2: return multiply_signs_rows<2>(taps, valid, blocks, sums, stride);
    case 3: return multiply_signs_rows<3>(taps, valid, blocks, sums, stride);
    case 4: return multiply_signs_rows<4>(taps, valid, blocks, sums, stride);
    case 5: return multiply_signs_rows<5>(taps, valid, blocks, sums, stride);
    case 6: return multiply_signs_rows<6>(taps, valid, blocks, sums, stride);
    case 7: return multiply_signs_rows<7>(taps, valid, blocks, sums, stride);
    default: return multiply_signs_rows<8>(taps, valid, blocks, sums, stride);
  }
}

}  // namespace

extern const TapKernel TAPS = {TABLES * TABLE, ROWS_AT_ONCE, prepare, multiply,
                               multiply_signs, finish_real,  softmax_row};

}  // namespace avx512
}  // namespace varbnn
