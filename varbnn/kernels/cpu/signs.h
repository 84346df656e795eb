// Products of packed signs with packed ±1 weights: K - 2 popcount(values xor weight), whole numbers.
#pragma once
#include "products.h"

namespace varbnn {

constexpr int PAIR = 2 * BLOCK;  // outputs of two blocks: what one word of packed results holds

// One network's product for `rows` rows of packed signs and the outputs from 32 * first_pair up to `outputs`, or
// 32 * last_pair where that is less. `weight`, `finish` and `out` are those of output 0.
struct SignProduct {
  const uint32_t* values;
  int64_t rows;
  const uint32_t* weight;
  int64_t inputs, outputs;
  int64_t first_pair, last_pair;
  Finish finish;
  void* out;  // of the first row
};

using MultiplySigns = int (*)(const SignProduct&);  // returns a Status

// Signs of rows of floats, and how many of each row are +1. False: there is a NaN.
using PackSigns = bool (*)(const float* values, int64_t rows, int64_t length, uint32_t* packed, int32_t* counts);

namespace baseline {
int multiply_signs(const SignProduct& product);
bool pack_signs(const float* values, int64_t rows, int64_t length, uint32_t* packed, int32_t* counts);
}  // namespace baseline
namespace avx2 {
int multiply_signs(const SignProduct& product);
bool pack_signs(const float* values, int64_t rows, int64_t length, uint32_t* packed, int32_t* counts);
}  // namespace avx2
namespace avx512 {
int multiply_signs(const SignProduct& product);
bool pack_signs(const float* values, int64_t rows, int64_t length, uint32_t* packed, int32_t* counts);
}  // namespace avx512
namespace neon {
int multiply_signs(const SignProduct& product);
bool pack_signs(const float* values, int64_t rows, int64_t length, uint32_t* packed, int32_t* counts);
}  // namespace neon

}  // namespace varbnn
