#include <immintrin.h>

#include "signs_tile.h"

namespace varbnn {
namespace {

struct Avx2 {
  using Lanes = Vectors<32>;
  static constexpr int ROWS = 1;

  static uint32_t bits(Lanes::Ints lanes) {
    return static_cast<uint32_t>(_mm256_movemask_ps(reinterpret_cast<__m256>(lanes)));
  }

  // By a table of the counts of four bits.
  static Lanes::Words bytes(Lanes::Words lanes) {
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,  //
                                           0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i nibble = _mm256_set1_epi8(15), own = reinterpret_cast<__m256i>(lanes);
    const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(own, nibble));
    const __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(own, 4), nibble));
    return reinterpret_cast<Lanes::Words>(_mm256_add_epi8(low, high));
  }

  static Lanes::Words sum(Lanes::Words bytes) {
    const __m256i twos = _mm256_maddubs_epi16(reinterpret_cast<__m256i>(bytes), _mm256_set1_epi8(1));
    return reinterpret_cast<Lanes::Words>(_mm256_madd_epi16(twos, _mm256_set1_epi16(1)));
  }

  template <int ROWS, int BLOCKS, bool FETCH>
  static void count(const uint32_t* values, int64_t words, const uint32_t* weight, int32_t counts[][PAIR]) {
    count_by_adding<Avx2, ROWS, BLOCKS, FETCH>(values, words, weight, counts);
  }
};

}  // namespace

namespace avx2 {

int multiply_signs(const SignProduct& product) { return multiply_signs_with<Avx2>(product); }

bool pack_signs(const float* values, int64_t rows, int64_t length, uint32_t* packed, int32_t* counts) {
  return pack_signs_with<Avx2>(values, rows, length, packed, counts);
}

}  // namespace avx2
}  // namespace varbnn
