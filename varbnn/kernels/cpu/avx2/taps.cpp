// Four activations make a table of the 8 signed sums in which the fourth is subtracted; the other 8 are their
// negatives. Three weight bits look up a sum of 8 outputs, the fourth says which half it is of.

#include <immintrin.h>

#include <cstring>

#include "../finish.h"
#include "../softmax.h"
#include "../taps.h"

namespace varbnn {
namespace avx2 {
namespace {

constexpr int TABLE = 8;          // floats in a table
constexpr int TABLES = WORD / 4;  // in a word
constexpr int ROWS_AT_ONCE = 4;

inline __m256 signed_copies(float value, __m256i flip) {
  return _mm256_castsi256_ps(_mm256_xor_si256(_mm256_castps_si256(_mm256_set1_ps(value)), flip));
}

void tables(const float* values, int64_t count, float* prepared) {
  const int m = INT32_MIN;
  const __m256i flip[3] = {_mm256_setr_epi32(m, 0, m, 0, m, 0, m, 0), _mm256_setr_epi32(m, m, 0, 0, m, m, 0, 0),
                           _mm256_setr_epi32(m, m, m, m, 0, 0, 0, 0)};
  for (int64_t i = 0; i < count; i += 4) {
    const __m256 low = _mm256_add_ps(signed_copies(values[i], flip[0]), signed_copies(values[i + 1], flip[1]));
    const __m256 high = _mm256_sub_ps(signed_copies(values[i + 2], flip[2]), _mm256_set1_ps(values[i + 3]));
    _mm256_storeu_ps(prepared + i * 2, _mm256_add_ps(low, high));
  }
}

void prepare(const float* values, int64_t count, float* prepared) {
  const int64_t whole = count - count % WORD;
  tables(values, whole, prepared);
  if (whole == count) return;
  float last[WORD] = {};
  std::memcpy(last, values + whole, static_cast<size_t>(count - whole) * sizeof(float));
  tables(last, WORD, prepared + whole * 2);
}

// Half a block (8 outputs) of ROWS rows.
template <int ROWS>
void multiply_half(const Taps<float>& taps, const uint32_t* weights, float* sums, int64_t stride) {
  const __m256i fourth = _mm256_set1_epi32(static_cast<int>(0x88888888u));
  const __m256i sign_bit = _mm256_set1_epi32(INT32_MIN);
  const __m256 one = _mm256_set1_ps(1.0f);
  __m256 acc[ROWS];
  for (int r = 0; r < ROWS; ++r) acc[r] = _mm256_setzero_ps();
  for (int64_t t = 0; t < taps.count; ++t) {
    const float* table[ROWS];
    for (int r = 0; r < ROWS; ++r) table[r] = taps.at[t * ROWS + r];
    const uint32_t* line = weights + taps.offset[t];
    for (int64_t j = 0; j < taps.words; ++j, line += BLOCK) {
      __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line));
      const __m256i set = _mm256_and_si256(bits, fourth);
      // where the fourth bit is set, the other three are inverted: the sum of opposite signs, negated
      const __m256i spread = _mm256_sub_epi32(_mm256_slli_epi32(set, 1), _mm256_srli_epi32(set, 3));
      __m256i index = _mm256_xor_si256(bits, spread);
#pragma GCC unroll 8
      for (int n = 0; n < TABLES; ++n) {
        const __m256i negate = _mm256_and_si256(_mm256_slli_epi32(bits, 28 - 4 * n), sign_bit);
        for (int r = 0; r < ROWS; ++r) {
          const __m256 found = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table[r] + n * TABLE), index);
          const __m256 term = _mm256_xor_ps(found, _mm256_castsi256_ps(negate));
          acc[r] = _mm256_fmadd_ps(one, term, acc[r]);  // one addition, on units that do not permute
        }
        index = _mm256_srli_epi32(index, 4);
      }
      for (int r = 0; r < ROWS; ++r) table[r] += TABLES * TABLE;
    }
  }
  for (int r = 0; r < ROWS; ++r) _mm256_storeu_ps(sums + r * stride, acc[r]);
}

template <int ROWS>
void multiply_rows(const Taps<float>& taps, const Blocks& blocks, float* sums, int64_t stride) {
  for (int64_t b = 0; b < blocks.count; ++b)
    for (int half = 0; half < BLOCK; half += 8)
      multiply_half<ROWS>(taps, blocks.words + b * blocks.stride + half, sums + b * BLOCK + half, stride);
}

void multiply(const Taps<float>& taps, const Blocks& blocks, float* sums, int64_t stride) {
  switch (taps.rows) {
    case 1: return multiply_rows<1>(taps, blocks, sums, stride);
    case 2: return multiply_rows<2>(taps, blocks, sums, stride);
    case 3: return multiply_rows<3>(taps, blocks, sums, stride);
    default: return multiply_rows<4>(taps, blocks, sums, stride);
  }
}

// The number of set bits of each byte, by halves of a byte.
inline __m256i byte_counts(__m256i x) {
  const __m256i count = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2,
                                         2, 3, 2, 3, 3, 4);
  const __m256i half = _mm256_set1_epi8(15);
  return _mm256_add_epi8(_mm256_shuffle_epi8(count, _mm256_and_si256(x, half)),
                         _mm256_shuffle_epi8(count, _mm256_and_si256(_mm256_srli_epi16(x, 4), half)));
}

// Half a block (8 outputs) of ROWS rows; bytes hold up to 255, so that 31 words are counted before they are widened.
template <int ROWS>
void multiply_signs_half(const Taps<uint32_t>& taps, const int32_t* valid, const uint32_t* weights, float* sums,
                         int64_t stride) {
  __m256i unequal[ROWS];
  int64_t counted[ROWS];
  for (int r = 0; r < ROWS; ++r) {
    unequal[r] = _mm256_setzero_si256();
    counted[r] = -taps.unused;
  }
  for (int64_t t = 0; t < taps.count; ++t) {
    for (int r = 0; r < ROWS; ++r) counted[r] -= valid[t * ROWS + r] * taps.words * WORD;
    const uint32_t* weights_here = weights + taps.offset[t];
    for (int64_t first = 0; first < taps.words; first += 31) {
      const int64_t last = first + 31 < taps.words ? first + 31 : taps.words;
      __m256i bytes[ROWS];
      for (int r = 0; r < ROWS; ++r) bytes[r] = _mm256_setzero_si256();
      for (int64_t j = first; j < last; ++j) {
        const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights_here + j * BLOCK));
        for (int r = 0; r < ROWS; ++r) {
          const __m256i differ = _mm256_xor_si256(bits, _mm256_set1_epi32(taps.at[t * ROWS + r][j]));
          bytes[r] = _mm256_add_epi8(bytes[r], byte_counts(differ));
        }
      }
      for (int r = 0; r < ROWS; ++r) {
        const __m256i pairs = _mm256_maddubs_epi16(bytes[r], _mm256_set1_epi8(1));
        const __m256i wide = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
        const __m256i here = _mm256_set1_epi32(valid[t * ROWS + r]);
        unequal[r] = _mm256_add_epi32(unequal[r], _mm256_and_si256(wide, here));
      }
    }
  }
  for (int r = 0; r < ROWS; ++r) {
    const __m256i twice = _mm256_slli_epi32(unequal[r], 1);
    const __m256i dot = _mm256_sub_epi32(_mm256_set1_epi32(static_cast<int32_t>(counted[r])), twice);
    _mm256_storeu_ps(sums + r * stride, _mm256_cvtepi32_ps(dot));
  }
}

template <int ROWS>
void multiply_signs_rows(const Taps<uint32_t>& taps, const int32_t* valid, const Blocks& blocks, float* sums,
                         int64_t stride) {
  for (int64_t b = 0; b < blocks.count; ++b)
    for (int half = 0; half < BLOCK; half += 8)
      multiply_signs_half<ROWS>(taps, valid, blocks.words + b * blocks.stride + half, sums + b * BLOCK + half, stride);
}

void multiply_signs(const Taps<uint32_t>& taps, const int32_t* valid, const Blocks& blocks, float* sums,
                    int64_t stride) {
  switch (taps.rows) {
    case 1: return multiply_signs_rows<1>(taps, valid, blocks, sums, stride);
    case 2: return multiply_signs_rows<2>(taps, valid, blocks, sums, stride);
    case 3: return multiply_signs_rows<3>(taps, valid, blocks, sums, stride);
    default: return multiply_signs_rows<4>(taps, valid, blocks, sums, stride);
  }
}

}  // namespace

extern const TapKernel TAPS = {TABLES * TABLE, ROWS_AT_ONCE, prepare, multiply,
                               multiply_signs, finish_real,  softmax_row};

}  // namespace avx2
}  // namespace varbnn
