#include <immintrin.h>

#include "sampling_tile.h"

namespace varbnn {
namespace {

struct Avx2 {
  using vec = __m256i;
  using Lanes = Vectors<32>;
  static constexpr int LANES = 4;
  static constexpr int ROWS = 1;  // sixteen registers hold no more than two chains

  static vec splat(uint32_t word) { return _mm256_set1_epi64x(word); }
  static vec counters(uint32_t first) { return _mm256_add_epi32(splat(first), _mm256_setr_epi64x(0, 2, 4, 6)); }
  static vec mul(vec a, vec b) { return _mm256_mul_epu32(a, b); }
  static vec high(vec a) { return _mm256_srli_epi64(a, 32); }
  static vec flip(vec a, vec b, vec c) { return _mm256_xor_si256(_mm256_xor_si256(b, c), a); }
  static vec join(vec even, vec odd) { return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA); }
  static void store(uint32_t* words, vec even, vec odd) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), join(even, odd));
  }

  static bool compare(const vec c[2][4], const uint16_t* lower, uint32_t bits[4]) {
    const vec reach = _mm256_set1_epi16(REACH);
    vec reached[4], excess = _mm256_set1_epi16(-1);
    for (int w = 0; w < 4; ++w) {
      const vec word = join(c[0][w], c[1][w]);
      const vec bound = _mm256_load_si256(reinterpret_cast<const __m256i*>(lower + 32 * w));
      reached[w] = _mm256_cmpeq_epi16(_mm256_max_epu16(word, bound), word);
      excess = _mm256_min_epu16(excess, _mm256_sub_epi16(word, bound));
    }
    for (int w = 0; w < 4; w += 2) {
      const vec bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(reached[w], reached[w + 1]), 0xD8);
      const uint32_t both = static_cast<uint32_t>(_mm256_movemask_epi8(bytes));
      bits[w] = both & 0xFFFF;
      bits[w + 1] = both >> 16;
    }
    return _mm256_movemask_epi8(_mm256_cmpeq_epi16(_mm256_min_epu16(excess, reach), excess)) != 0;
  }


  static __m256 madd(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
  static __m256 clamp(__m256 y) {  // a NaN becomes 20
    return _mm256_max_ps(_mm256_min_ps(y, _mm256_set1_ps(20.0f)), _mm256_set1_ps(-20.0f));
  }
  static __m256 reciprocal(__m256 x) {
    const __m256 guess = _mm256_rcp_ps(x);
    return _mm256_mul_ps(guess, _mm256_fnmadd_ps(x, guess, _mm256_set1_ps(2.0f)));
  }

  static void expand(uint32_t word, float* signs, int count) {
    const int end = count < 32 ? count : 32;
    for (int i = 0; i < end; ++i) signs[i] = (word >> i) & 1u ? 1.0f : -1.0f;
  }
};

}  // namespace

namespace avx2 {

bool sample_tile(const SignTile& tile, const Stream& stream, uint32_t first, int64_t count, uint32_t* blocks,
                 int64_t stride) {
  return sample_tile_with<Avx2>(tile, stream, first, count, blocks, stride);
}

void draw_tile(const SignTile& tile, const Stream& stream, uint32_t sample, float* signs) {
  draw_tile_with<Avx2>(tile, stream, sample, signs);
}

}  // namespace avx2
}  // namespace varbnn
