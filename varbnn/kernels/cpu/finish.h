// What follows a product: scale, shift (two roundings), activation. Everything here has internal linkage: each level
// includes it and compiles it with its own flags.
#pragma once
#include <cstring>

#include "products.h"

namespace varbnn {
namespace {

// `value(n)` is the product of output n.
template <class Value>
inline int finish_row(Value value, int64_t outputs, const Finish& finish, void* out) {
  const float* scale = finish.scale;
  const float* shift = finish.shift;
  float chunk[WORD];
  bool found_nan = false;
  for (int64_t start = 0; start < outputs; start += WORD) {
    const int64_t count = outputs - start < WORD ? outputs - start : WORD;
    for (int64_t i = 0; i < count; ++i) chunk[i] = value(start + i);
    if (scale)
      for (int64_t i = 0; i < count; ++i) chunk[i] = chunk[i] * scale[start + i];
    if (shift)
      for (int64_t i = 0; i < count; ++i) chunk[i] = chunk[i] + shift[start + i];
    if (finish.activation == SIGN) {
      uint32_t bits = 0;
      for (int64_t i = 0; i < count; ++i) {
        bits |= uint32_t(chunk[i] >= 0) << i;
        found_nan |= chunk[i] != chunk[i];
      }
      static_cast<uint32_t*>(out)[start / WORD] = bits;
      continue;
    }
    if (finish.activation == RELU)
      for (int64_t i = 0; i < count; ++i) chunk[i] = chunk[i] < 0 ? 0.0f : chunk[i];  // NaN stays
    std::memcpy(static_cast<float*>(out) + start, chunk, count * sizeof(float));
  }
  return found_nan ? FOUND_NAN : OK;
}

inline int finish_real(const float* sums, int64_t outputs, const Finish& finish, void* out) {
  return finish_row([=](int64_t n) { return sums[n]; }, outputs, finish, out);
}

inline int finish_int8(const int32_t* sums, float unit, int64_t outputs, const Finish& finish, void* out) {
  return finish_row([=](int64_t n) { return float(sums[n]) * unit; }, outputs, finish, out);
}

}  // namespace
}  // namespace varbnn
