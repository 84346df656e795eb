// What follows a product: scale, shift (two roundings), activation. Everything here has internal linkage: each level
// includes it and compiles it with its own flags.
#pragma once
#include <cstring>

#include "products.h"

namespace varbnn {
namespace {

// Scale and shift of output n, where there are any: known when compiling, so that loops hold no branch.
template <bool SCALE, bool SHIFT, class Value>
__attribute__((always_inline)) inline float scaled(Value value, int64_t n, const Finish& finish) {
  float result = value(n);
  if (SCALE) result = result * finish.scale[n];
  if (SHIFT) result = result + finish.shift[n];
  return result;
}

// The signs of `count` outputs from `start` on; returns whether one is NaN. Inlined where `count` is constant.
template <bool SCALE, bool SHIFT, class Value>
__attribute__((always_inline)) inline bool finish_signs(Value value, int64_t start, int64_t count, const Finish& finish,
                                                        uint32_t* out) {
  uint32_t bits = 0, nan = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float result = scaled<SCALE, SHIFT>(value, start + i, finish);
    bits |= uint32_t(result >= 0) << i;
    nan |= uint32_t(result != result);
  }
  out[start / WORD] = bits;
  return nan != 0;
}

template <bool SCALE, bool SHIFT, class Value>
int finish_all(Value value, int64_t outputs, const Finish& finish, void* out) {
  if (finish.activation == SIGN) {
    uint32_t* words = static_cast<uint32_t*>(out);
    const int64_t whole = outputs - outputs % WORD;
    bool found_nan = false;
    for (int64_t n = 0; n < whole; n += WORD) found_nan |= finish_signs<SCALE, SHIFT>(value, n, WORD, finish, words);
    if (whole < outputs) found_nan |= finish_signs<SCALE, SHIFT>(value, whole, outputs - whole, finish, words);
    return found_nan ? FOUND_NAN : OK;
  }
  float* __restrict floats = static_cast<float*>(out);
  if (finish.activation == RELU)
    for (int64_t n = 0; n < outputs; ++n) {
      const float result = scaled<SCALE, SHIFT>(value, n, finish);
      floats[n] = result < 0 ? 0.0f : result;  // NaN stays
    }
  else
    for (int64_t n = 0; n < outputs; ++n) floats[n] = scaled<SCALE, SHIFT>(value, n, finish);
  return OK;
}

// `value(n)` is the product of output n.
template <class Value>
inline int finish_row(Value value, int64_t outputs, const Finish& finish, void* out) {
  if (finish.scale)
    return finish.shift ? finish_all<true, true>(value, outputs, finish, out)
                        : finish_all<true, false>(value, outputs, finish, out);
  return finish.shift ? finish_all<false, true>(value, outputs, finish, out)
                      : finish_all<false, false>(value, outputs, finish, out);
}

inline int finish_real(const float* sums, int64_t outputs, const Finish& finish, void* out) {
  return finish_row([=](int64_t n) { return sums[n]; }, outputs, finish, out);
}

inline int finish_int8(const int32_t* sums, float unit, int64_t outputs, const Finish& finish, void* out) {
  return finish_row([=](int64_t n) { return float(sums[n]) * unit; }, outputs, finish, out);
}

}  // namespace
}  // namespace varbnn
