// The law of the sign of N(u, 1), in float32 arithmetic that the compiler can vectorise. Errors are relative and were
// measured against float64 over the range of float32.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#define VARBNN_INLINE __attribute__((always_inline)) inline  // a call would keep a loop from being vectorised

namespace varbnn {
namespace {

VARBNN_INLINE float from_bits(int32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

VARBNN_INLINE int32_t to_bits(float value) {
  int32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

// e^x for -87 <= x <= 88: powers of two by the exponent bits, the rest by Cephes' polynomial. 1e-7.
VARBNN_INLINE float exp_within(float x) {
  const float k = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // nearest whole number
  const float r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return (p * (r * r) + r + 1.0f) * from_bits((int32_t(k) + 127) << 23);
}

// e^x for x <= 0, 0 below -87.
VARBNN_INLINE float exp_of_negative(float x) {
  const float e = exp_within(x < -87.0f ? -87.0f : x);
  return x < -87.0f ? 0.0f : e;
}

// log x for positive, normal x: exponent bits, and a series in (m - 1) / (m + 1) for the mantissa in [0.7, 1.4]. 1e-7.
VARBNN_INLINE float log_of_positive(float x) {
  const int32_t bits = to_bits(x), exponent = (bits - 0x3f3504f3) >> 23;
  const float mantissa = from_bits(bits - (exponent << 23));
  const float s = (mantissa - 1.0f) / (mantissa + 1.0f), z = s * s;
  const float series = 2.0f + z * (0.666666669f + z * (0.399999429f + z * (0.285879434f + z * 0.233f)));
  return float(exponent) * 0.693359375f + (s * series + float(exponent) * -2.12194440e-4f);
}

// Phi(-a) e^(a^2 / 2) for a >= 0, a polynomial in (x - 2) / (x + 2) over 1 + 2 x, x = a / sqrt 2. 3e-7.
VARBNN_INLINE float scaled_tail(float a) {
  const float x = a * 0.707106781f, t = (x - 2.0f) / (x + 2.0f);
  float p = 1.608035817e-4f + t * 6.336945835e-5f;
  p = p * t - 3.579204478e-4f;
  p = p * t - 1.395706946e-3f;
  p = p * t + 1.217410592e-3f;
  p = p * t + 8.689159658e-3f;
  p = p * t - 8.018963079e-3f;
  p = p * t - 5.421195849e-2f;
  p = p * t + 1.640494541e-1f;
  p = p * t - 1.660310957e-1f;
  p = p * t - 9.276376277e-2f;
  p = p * t + 1.276978391e+0f;
  return 0.5f * p / (1.0f + 2.0f * x);
}

// log Phi(u) - log Phi(-u), and 2 Phi(u) Phi(-u) / phi(u).
struct Coin {
  float log_odds, window;
};

VARBNN_INLINE Coin coin(float u) {
  const float a = std::fabs(u), half_square = 0.5f * a * a;
  const float tail = scaled_tail(a), share = tail * exp_of_negative(-half_square);  // Phi(-a)
  const float v = u * u;
  const float near = u * (1.595769122f + v * (7.267119859e-2f + v * (-7.390821315e-5f + v * (-1.044892991e-4f + v * 5.943101995e-6f))));
  const float far = log_of_positive((1.0f - share) / tail) + half_square;
  return {a < 1.0f ? near : std::copysign(far, u), (1.0f - share) * tail * 5.013256549f};
}

// window(u) · log_odds(u) / 2 for |u| <= NEAR: u times a ratio of polynomials in u^2, fitted to values of 40 digits. 3e-7.
constexpr float NEAR = 16.0f;

VARBNN_INLINE float pull_near(float u) {
  const float v = u * u;
  float above = 6.756957415e-9f, below = 1.350232010e-8f;
  above = above * v + 1.843440403e-6f;
  below = below * v + 3.582928901e-6f;
  above = above * v + 6.519582443e-5f;
  below = below * v + 1.115205177e-4f;
  above = above * v + 1.300325488e-3f;
  below = below * v + 2.222526663e-3f;
  above = above * v + 1.965360017e-2f;
  below = below * v + 2.955742748e-2f;
  above = above * v + 1.563133170e-1f;
  below = below * v + 2.473931137e-1f;
  return u * ((above * v + 1.0f) / (below * v + 1.0f));
}

}  // namespace
}  // namespace varbnn
