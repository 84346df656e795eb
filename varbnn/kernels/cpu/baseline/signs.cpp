#include "signs_tile.h"

namespace varbnn {
namespace {

// Four lanes in the compiler's own vectors: whatever the machine has.
struct Portable {
  using Lanes = Vectors<16>;
  static constexpr int ROWS = 1;

  static uint32_t bits(Lanes::Ints lanes) {
    uint32_t word = 0;
    for (int i = 0; i < Lanes::LANES; ++i) word |= static_cast<uint32_t>(lanes[i] < 0) << i;
    return word;
  }

  // Counts of two, four, eight bits side by side, then the four bytes of each lane added up.
  static Lanes::Words popcount(Lanes::Words x) {
    x = x - ((x >> 1) & 0x55555555u);
    x = (x & 0x33333333u) + ((x >> 2) & 0x33333333u);
    x = (x + (x >> 4)) & 0x0F0F0F0Fu;
    x = x + (x >> 8);
    return (x + (x >> 16)) & 0x3Fu;
  }

  template <int ROWS, int BLOCKS>
  static void count(const uint32_t* values, int64_t words, const uint32_t* weight, int32_t counts[][PAIR]) {
    count_by_adding<Portable, ROWS, BLOCKS>(values, words, weight, counts);
  }
};

}  // namespace

namespace baseline {

int multiply_signs(const SignProduct& product) { return multiply_signs_with<Portable>(product); }

bool pack_signs(const float* values, int64_t rows, int64_t length, uint32_t* packed, int32_t* counts) {
  return pack_signs_with<Portable>(values, rows, length, packed, counts);
}

}  // namespace baseline
}  // namespace varbnn
