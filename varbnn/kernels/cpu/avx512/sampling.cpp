#include <immintrin.h>

#include "sampling_tile.h"

namespace varbnn {
namespace {

struct Avx512 {
  using vec = __m512i;
  using Lanes = Vectors<64>;
  static constexpr int LANES = 8;
  static constexpr int ROWS = 2;  // four independent chains

  static vec splat(uint32_t word) { return _mm512_set1_epi64(word); }
  static vec counters(uint32_t first) {
    return _mm512_add_epi32(splat(first), _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14));
  }
  static vec mul(vec a, vec b) { return _mm512_mul_epu32(a, b); }
  static vec high(vec a) { return _mm512_srli_epi64(a, 32); }
  static vec flip(vec a, vec b, vec c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
  static vec join(vec even, vec odd) { return _mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32)); }
  static void store(uint32_t* words, vec even, vec odd) { _mm512_storeu_si512(words, join(even, odd)); }

  static bool compare(const vec c[2][4], const uint16_t* lower, uint32_t bits[4]) {
    const vec reach = _mm512_set1_epi16(REACH);
    vec excess = _mm512_set1_epi16(-1);
    for (int w = 0; w < 4; ++w) {
      const vec word = join(c[0][w], c[1][w]), bound = _mm512_load_si512(lower + 32 * w);
      bits[w] = _mm512_cmpge_epu16_mask(word, bound);
      excess = _mm512_min_epu16(excess, _mm512_sub_epi16(word, bound));
    }
    return _mm512_cmple_epu16_mask(excess, reach) != 0;
  }


  static __m512 madd(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
  static __m512 clamp(__m512 y) {  // a NaN becomes 20
    return _mm512_max_ps(_mm512_min_ps(y, _mm512_set1_ps(20.0f)), _mm512_set1_ps(-20.0f));
  }
  static __m512 reciprocal(__m512 x) {
    const __m512 guess = _mm512_rcp14_ps(x);
    return _mm512_mul_ps(guess, _mm512_fnmadd_ps(x, guess, _mm512_set1_ps(2.0f)));
  }

  static void expand(uint32_t word, float* signs, int count) {
    const __m512 minus = _mm512_set1_ps(-1.0f), plus = _mm512_set1_ps(1.0f);
    const uint32_t exists = count >= 32 ? ~0u : (1u << count) - 1u;
    _mm512_mask_storeu_ps(signs, static_cast<__mmask16>(exists), _mm512_mask_blend_ps(word & 0xFFFF, minus, plus));
    if (count > 16)
      _mm512_mask_storeu_ps(signs + 16, static_cast<__mmask16>(exists >> 16),
                            _mm512_mask_blend_ps(static_cast<__mmask16>(word >> 16), minus, plus));
  }
};

}  // namespace

namespace avx512 {

bool sample_tile(const SignTile& tile, const Stream& stream, uint32_t first, int64_t count, uint32_t* blocks,
                 int64_t stride) {
  return sample_tile_with<Avx512>(tile, stream, first, count, blocks, stride);
}

void draw_tile(const SignTile& tile, const Stream& stream, uint32_t sample, float* signs) {
  draw_tile_with<Avx512>(tile, stream, sample, signs);
}

}  // namespace avx512
}  // namespace varbnn
