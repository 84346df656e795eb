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

// Adds the probabilities to `mean` and returns their entropy in nats; NaN stays NaN. The logits are overwritten.
inline double softmax_row(float* __restrict logits, int64_t outputs, double* __restrict mean) {
  float largest = -INFINITY;
  for (int64_t i = 0; i < outputs; ++i) largest = logits[i] > largest ? logits[i] : largest;
  constexpr int LANES = 16;  // so many sums at once, in a fixed order
  double total[LANES] = {}, weighted[LANES] = {};
  const int64_t whole = outputs - outputs % LANES;
  const auto term = [&](int64_t i, int lane) {
    const float below = logits[i] - largest;
    const float e = exp_negative(below);
    logits[i] = e;
    total[lane] += e;
    weighted[lane] += e * (below < -87.0f ? 0.0f : below);
  };
  for (int64_t first = 0; first < whole; first += LANES)
    for (int lane = 0; lane < LANES; ++lane) term(first + lane, lane);
  for (int64_t i = whole; i < outputs; ++i) term(i, static_cast<int>(i - whole));
  for (int lane = 1; lane < LANES; ++lane) {
    total[0] += total[lane];
    weighted[0] += weighted[lane];
  }
  const double share = 1.0 / total[0];
  for (int64_t i = 0; i < outputs; ++i) mean[i] += logits[i] * share;
  // -Σ p log p with p = e / total, so log p = below - log total
  return std::log(total[0]) - weighted[0] * share;
}

}  // namespace
}  // namespace varbnn
