// The softmax of one row of logits. Everything here has internal linkage: each level includes it and compiles it with
// its own flags.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace varbnn {
namespace {

// e^x for x <= 0 within 2e-7 of itself, exactly 0 below -87; NaN stays NaN. Without branches and calls, so that loops
// over it vectorise.
inline float exp_negative(float x) {
  const float clamped = x < -87.0f ? -87.0f : x;
  const float shifted = clamped * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: rounds to a whole number in the low bits
  const float whole = shifted - 12582912.0f;
  float r = clamped - whole * 0.693359375f;  // ln 2 in two parts
  r = r + whole * 2.12194440e-4f;
  float series = 1.98412698e-4f;
  series = series * r + 1.38888889e-3f;
  series = series * r + 8.33333333e-3f;
  series = series * r + 4.16666667e-2f;
  series = series * r + 1.66666667e-1f;
  series = series * r + 0.5f;
  series = series * r + 1.0f;
  series = series * r + 1.0f;
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits << 23) + 0x3f800000u;  // 2^whole
  float power;
  std::memcpy(&power, &bits, sizeof power);
  const float result = series * power;
  return x < -87.0f ? 0.0f : result;
}

// Sums of 16 lanes, added in a fixed order.
inline double sum_of(const float* values, int64_t count) {
  float lane[16] = {};
  int64_t i = 0;
  for (; i + 16 <= count; i += 16)
    for (int l = 0; l < 16; ++l) lane[l] += values[i + l];
  double sum = 0;
  for (int l = 0; l < 16; ++l) sum += lane[l];
  for (; i < count; ++i) sum += values[i];
  return sum;
}

inline float largest_of(const float* values, int64_t count) {
  float lane[16];
  for (int l = 0; l < 16; ++l) lane[l] = values[0];
  int64_t i = 0;
  for (; i + 16 <= count; i += 16)
    for (int l = 0; l < 16; ++l) lane[l] = values[i + l] > lane[l] ? values[i + l] : lane[l];
  float largest = lane[0];
  for (int l = 1; l < 16; ++l) largest = lane[l] > largest ? lane[l] : largest;
  for (; i < count; ++i) largest = values[i] > largest ? values[i] : largest;
  return largest;
}

// Adds the probabilities to `mean` and returns their entropy in nats; NaN stays NaN. The logits are overwritten.
inline double softmax_row(float* __restrict logits, int64_t outputs, double* __restrict mean) {
  constexpr int64_t SOME = 256;  // sums of so many are float32, of more double
  const float largest = largest_of(logits, outputs);
  float weighted[SOME];
  double total = 0, total_weighted = 0;
  for (int64_t start = 0; start < outputs; start += SOME) {
    const int64_t count = outputs - start < SOME ? outputs - start : SOME;
    float* __restrict some = logits + start;
    for (int64_t i = 0; i < count; ++i) {
      const float below = some[i] - largest, e = exp_negative(below);
      weighted[i] = e * (below < -87.0f ? 0.0f : below);
      some[i] = e;
    }
    total += sum_of(some, count);
    total_weighted += sum_of(weighted, count);
  }
  const double share = 1.0 / total;
  for (int64_t i = 0; i < outputs; ++i) mean[i] += logits[i] * share;
  // -Σ p log p with p = e / total, so log p = below - log total
  return std::log(total) - total_weighted * share;
}

}  // namespace
}  // namespace varbnn
