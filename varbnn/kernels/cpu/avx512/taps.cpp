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

// Lane i is the sign bit where bit `bit` of i is clear.
inline __m512i flips(int bit) {
  int32_t lane[16];
  for (int i = 0; i < 16; ++i) lane[i] = i >> bit & 1 ? 0 : INT32_MIN;
  return _mm512_loadu_si512(lane);
}

inline __m512 signed_copies(float value, __m512i flip) {
  return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(_mm512_set1_ps(value)), flip));
}

void tables(const float* values, int64_t count, float* prepared) {
  const __m512i flip[4] = {flips(0), flips(1), flips(2), flips(3)};
  for (int64_t i = 0; i < count; i += 4) {
    const __m512 low = _mm512_add_ps(signed_copies(values[i], flip[0]), signed_copies(values[i + 1], flip[1]));
    const __m512 high = _mm512_add_ps(signed_copies(values[i + 2], flip[2]), signed_copies(values[i + 3], flip[3]));
    _mm512_storeu_ps(prepared + i * 4, _mm512_add_ps(low, high));
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

// ROWS rows by SIDE blocks. x + y is written as x * 1 + y, the same number: multiply-adders run beside the units that
// permute and shift, adders would compete with them (twice as fast on Zen 4).
template <int ROWS, int SIDE>
void multiply_some(const Taps<float>& taps, const uint32_t* weights, int64_t block, float* sums, int64_t stride) {
  const __m512 one = _mm512_set1_ps(1.0f);
  __m512 acc[ROWS][SIDE];
  for (int r = 0; r < ROWS; ++r)
    for (int s = 0; s < SIDE; ++s) acc[r][s] = _mm512_setzero_ps();
  for (int64_t t = 0; t < taps.count; ++t) {
    const float* table[ROWS];
    for (int r = 0; r < ROWS; ++r) table[r] = taps.at[t * ROWS + r];
    const uint32_t* line = weights + taps.offset[t];
    for (int64_t j = 0; j < taps.words; ++j, line += BLOCK) {
      __m512i bits[SIDE];
      for (int s = 0; s < SIDE; ++s) bits[s] = _mm512_loadu_si512(line + s * block);
#pragma GCC unroll 8
      for (int n = 0; n < TABLES; ++n) {
        for (int r = 0; r < ROWS; ++r) {
          const __m512 entries = _mm512_loadu_ps(table[r] + n * TABLE);
          for (int s = 0; s < SIDE; ++s)
            acc[r][s] = _mm512_fmadd_ps(one, _mm512_permutexvar_ps(bits[s], entries), acc[r][s]);
        }
        for (int s = 0; s < SIDE; ++s) bits[s] = _mm512_srli_epi32(bits[s], 4);
      }
      for (int r = 0; r < ROWS; ++r) table[r] += TABLES * TABLE;
    }
  }
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

template <int ROWS>
void multiply_signs_rows(const Taps<uint32_t>& taps, const int32_t* valid, const uint32_t* weights, float* sums,
                         int64_t stride) {
  __m512i unequal[ROWS];
  int64_t counted[ROWS];
  for (int r = 0; r < ROWS; ++r) {
    unequal[r] = _mm512_setzero_si512();
    counted[r] = -taps.unused;
  }
  for (int64_t t = 0; t < taps.count; ++t) {
    const uint32_t* signs[ROWS];
    __m512i here[ROWS];
    for (int r = 0; r < ROWS; ++r) {
      signs[r] = taps.at[t * ROWS + r];
      here[r] = _mm512_set1_epi32(valid[t * ROWS + r]);
      counted[r] -= valid[t * ROWS + r] * taps.words * WORD;
    }
    const uint32_t* line = weights + taps.offset[t];
    for (int64_t j = 0; j < taps.words; ++j, line += BLOCK) {
      const __m512i bits = _mm512_loadu_si512(line);
      for (int r = 0; r < ROWS; ++r) {
        // 0x28: (a ^ b) & c
        const __m512i differ = _mm512_ternarylogic_epi32(bits, _mm512_set1_epi32(signs[r][j]), here[r], 0x28);
        unequal[r] = _mm512_add_epi32(unequal[r], _mm512_popcnt_epi32(differ));
      }
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    const __m512i twice = _mm512_slli_epi32(unequal[r], 1);
    const __m512i dot = _mm512_sub_epi32(_mm512_set1_epi32(static_cast<int32_t>(counted[r])), twice);
    _mm512_storeu_ps(sums + r * stride, _mm512_cvtepi32_ps(dot));
  }
}

template <int ROWS>
void multiply_signs_blocks(const Taps<uint32_t>& taps, const int32_t* valid, const Blocks& blocks, float* sums,
                           int64_t stride) {
  for (int64_t b = 0; b < blocks.count; ++b)
    multiply_signs_rows<ROWS>(taps, valid, blocks.words + b * blocks.stride, sums + b * BLOCK, stride);
}

void multiply_signs(const Taps<uint32_t>& taps, const int32_t* valid, const Blocks& blocks, float* sums,
                    int64_t stride) {
  switch (taps.rows) {
    case 1: return multiply_signs_blocks<1>(taps, valid, blocks, sums, stride);
    case 2: return multiply_signs_blocks<2>(taps, valid, blocks, sums, stride);
    case 3: return multiply_signs_blocks<3>(taps, valid, blocks, sums, stride);
    case 4: return multiply_signs_blocks<4>(taps, valid, blocks, sums, stride);
    case 5: return multiply_signs_blocks<5>(taps, valid, blocks, sums, stride);
    case 6: return multiply_signs_blocks<6>(taps, valid, blocks, sums, stride);
    case 7: return multiply_signs_blocks<7>(taps, valid, blocks, sums, stride);
    default: return multiply_signs_blocks<8>(taps, valid, blocks, sums, stride);
  }
}

}  // namespace

extern const TapKernel TAPS = {TABLES * TABLE, ROWS_AT_ONCE, prepare, multiply,
                               multiply_signs, finish_real,  softmax_row};

}  // namespace avx512
}  // namespace varbnn
