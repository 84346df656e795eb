#include <immintrin.h>

#include "signs_tile.h"

namespace varbnn {
namespace {

struct Avx512 {
  using Lanes = Vectors<64>;
  static constexpr int ROWS = 4;

  static uint32_t bits(Lanes::Ints lanes) { return _mm512_movepi32_mask(reinterpret_cast<__m512i>(lanes)); }

  template <int ROWS, int BLOCKS, bool FETCH>
  static void count(const uint32_t* values, int64_t words, const uint32_t* weight, int32_t counts[][PAIR]) {
    __m512i sums[ROWS][BLOCKS];
    for (int r = 0; r < ROWS; ++r)
      for (int b = 0; b < BLOCKS; ++b) sums[r][b] = _mm512_setzero_si512();
    for (int64_t j = 0; j < words; ++j) {
      __m512i own[BLOCKS];
      for (int b = 0; b < BLOCKS; ++b) own[b] = _mm512_loadu_si512(weight + (b * words + j) * BLOCK);
      if (FETCH)
        for (int b = 0; b < BLOCKS; ++b) _mm_prefetch(weight + ((b + BLOCKS) * words + j) * BLOCK, _MM_HINT_T0);
      for (int r = 0; r < ROWS; ++r) {
        const __m512i value = _mm512_set1_epi32(static_cast<int32_t>(values[r * words + j]));
        for (int b = 0; b < BLOCKS; ++b)
          sums[r][b] = _mm512_add_epi32(sums[r][b], _mm512_popcnt_epi32(_mm512_xor_si512(own[b], value)));
      }
    }
    for (int r = 0; r < ROWS; ++r)
      for (int b = 0; b < BLOCKS; ++b) _mm512_store_si512(counts[r] + b * BLOCK, sums[r][b]);
  }
};

}  // namespace

namespace avx512 {

int multiply_signs(const SignProduct& product) { return multiply_signs_with<Avx512>(product); }

bool pack_signs(const float* values, int64_t rows, int64_t length, uint32_t* packed, int32_t* counts) {
  return pack_signs_with<Avx512>(values, rows, length, packed, counts);
}

}  // namespace avx512
}  // namespace varbnn
