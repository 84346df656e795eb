// Thresholds of signs, in the float32 steps that varbnn/kernels/philox.py fixes, for vectors of any width.
#pragma once
#include "vectors.h"

namespace varbnn {

constexpr uint32_t NEVER = 0xFFFFFFFFu;  // the threshold of a weight that is -1 for sure

namespace {  // each level compiles its own copy with its own flags, and none may be merged with another

// t(natural) = P(-1) * 2^32; every operation is rounded to nearest even by itself. A NaN gives an unspecified one.
template <int BYTES>
inline typename Vectors<BYTES>::Words thresholds(typename Vectors<BYTES>::Floats natural) {
  using Floats = typename Vectors<BYTES>::Floats;
  using Ints = typename Vectors<BYTES>::Ints;
  using Words = typename Vectors<BYTES>::Words;
  const Floats twice = reinterpret_cast<Floats>(reinterpret_cast<Ints>(natural) & 0x7FFFFFFF) * -2.0f;
  const Floats x = twice > -24.0f ? twice : (Floats{} - 24.0f);  // and -24 for a NaN
  constexpr float HALVES = 12582912.0f;                          // 1.5 * 2^23: adding it rounds to a whole number
  const Floats k = (x * 1.44269504f + HALVES) - HALVES;
  const Floats r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
  Floats p = 1.9875691500e-4f * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Floats power = reinterpret_cast<Floats>((__builtin_convertvector(k, Ints) + 127) << 23);  // 2^k, by its bits
  const Floats e = ((p * (r * r)) + r + 1.0f) * power;
  const Floats scaled = (e / (e + 1.0f)) * 2147483648.0f;  // at most 2^30
  constexpr float WHOLE = 8388608.0f;                      // 2^23: from here on every float is a whole number
  const Floats rounded = scaled < WHOLE ? (scaled + WHOLE) - WHOLE : scaled;
  const Words smaller = reinterpret_cast<Words>(__builtin_convertvector(rounded, Ints)) * 2u;
  const Words larger = smaller == 0u ? (Words{} + NEVER) : (Words{} - smaller);  // 2^32 - smaller
  return natural < 0.0f ? larger : smaller;
}

// The same for one number.
inline uint32_t threshold(float natural) {
  const Vectors<16>::Floats one = {natural, 0, 0, 0};
  return thresholds<16>(one)[0];
}

}  // namespace
}  // namespace varbnn
