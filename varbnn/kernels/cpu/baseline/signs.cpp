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

  // Counts of two, four, eight bits side by side.
  static Lanes::Words bytes(Lanes::Words x) {
    x = x - ((x >> 1) & 0x55555555u);
    x = (x & 0x33333333u) + ((x >> 2) & 0x33333333u);
    return (x + (x >> 4)) & 0x0F0F0F0Fu;
  }

  static Lanes::Words sum(Lanes::Words bytes) {
    bytes = (bytes & 0x00FF00FFu) + ((bytes >> 8) & 0x00FF00FFu);
    return (bytes + (bytes >> 16)) & 0xFFFFu;
  }

  template <int ROWS, int BLOCKS, bool FETCH>
  static void count(const uint32_t* values, int64_t words, const uint32_t* weight, int32_t counts[][PAIR]) {
    count_by_adding<Portable, ROWS, BLOCKS, FETCH>(values, words, weight, counts);
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
