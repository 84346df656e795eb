// The loops of steps.h; included inside the namespace of an instruction set. Choices are made outside of the loops.
#include "coin.h"
#include "steps.h"

namespace varbnn {
namespace VARBNN_LEVEL {
namespace {

constexpr int64_t PART = 1024;  // entries that share a choice of formula

VARBNN_INLINE float lerp(float from, float to, float rate) { return from + rate * (to - from); }

// The sign of a latent as torch forms it: sign(-0) is +1, and NaN stays NaN.
VARBNN_INLINE float sign_of(float value) {
  const float bounded = (value < -1.0f ? -1.0f : value > 1.0f ? 1.0f : value) + 0.0f;
  return std::copysign(1.0f, bounded) + 0.0f * bounded;
}

// sech(x)^2 by e = exp(-2 |x|).
VARBNN_INLINE float sech2_of(float e) {
  const float share = 1.0f / (1.0f + e);
  return 4.0f * e * share * share;
}

// 4 |d| / (1 + exp(-2 b)) for d > 0, with exp(2 b) for d < 0: large for a step that would take b back to 0.
VARBNN_INLINE float against(float b, float d, float e) {
  const float share = 1.0f / (1.0f + e);
  return 4.0f * std::fabs(d) * (b * d < 0.0f ? e * share : share);
}

template <int FILTER, int PULL, int DECISION, bool PRIOR>
void loop(const Settings& given, const Tensors& t, int64_t begin, int64_t end) {
  const Settings s = given;
  float* __restrict belief = t.belief;
  const float* __restrict gradient = t.gradient;
  float* __restrict first = t.first;
  float* __restrict second = t.second;
  float* __restrict prior = t.prior;
  const float centre_odds = PULL == COIN && !PRIOR ? coin(s.prior * s.strength).log_odds : 0.0f;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    float b = belief[i], g = gradient[i] * s.gain;
    const float centre = PRIOR ? prior[i] : s.prior;
    if (PULL == COUPLED) g = g + s.strength * (b - centre);
    if (PULL == AT_STEP) b = b * (1.0f - s.strength) + s.strength * centre;
    if (PULL == VARIANCE) b = b - s.strength * sech2_of(exp_of_negative(-2.0f * std::fabs(b))) * (b - centre);
    if (PULL == SETTLING) {
      const float moved = s.strength * (b - centre);
      b = b - moved;
      prior[i] = (centre + moved) * s.kept;
    }
    if (PULL == COIN) {
      const Coin own = coin(b);
      g = g + 0.5f * own.window * (own.log_odds - (PRIOR ? coin(centre * s.strength).log_odds : centre_odds));
    }
    if (PULL == FAIR_COIN_NEAR) g = g + pull_near(b);
    float d = g;
    if (FILTER == AVERAGE) {
      const float m = lerp(first[i], g, s.rate);
      first[i] = m;
      d = m / s.divisor;
    } else if (FILTER == HEAVY_BALL) {
      d = s.rate * first[i] + s.rate2 * g;
      first[i] = d;
    } else if (FILTER == QUOTIENT) {
      const float m = lerp(first[i], g, s.rate), v = second[i] * (1.0f - s.rate2) + s.rate2 * (g * g);
      first[i] = m;
      second[i] = v;
      d = m / (std::sqrt(v) * s.scale + s.eps);
    } else if (FILTER == CASCADE) {
      const float fast = lerp(first[i], g, s.rate);
      first[i] = fast;
      d = lerp(second[i], fast, s.rate2);
      second[i] = d;
    }
    if (DECISION == WARY) {  // with PACED: the pace is that of the belief before it forgets
      const float e = exp_of_negative(-2.0f * std::fabs(b)), spread = sech2_of(e);
      const float pace = 1.0f / (against(b, d, e) + s.caution * spread + s.least);
      b = b - s.strength * spread * pace * b - s.lr * pace * d;
    } else if (DECISION == CONSOLIDATING) {
      const float resisted = b * d > 0.0f ? std::fabs(b) : 0.0f;
      b = b - s.lr * sech2_of(exp_of_negative(-2.0f * s.caution * resisted)) * d;
    } else if (DECISION == DESCEND) {
      b = b - s.lr * d;
    } else if (DECISION == BOX) {
      b = b - s.lr * d;
      b = b < s.low ? s.low : b > s.high ? s.high : b;
    } else if (DECISION == FLIP) {
      const float w = sign_of(b);
      b = w * std::copysign(1.0f, s.threshold - w * d);
    } else {
      b = sign_of(sign_of(b) * s.threshold - d);
    }
    belief[i] = b;
  }
}

// The pull to a fair coin, cheaper in parts where no belief is far out.
template <int FILTER, int DECISION>
void to_fair_coin(const Settings& s, const Tensors& t, int64_t begin, int64_t end) {
  for (int64_t from = begin; from < end; from += PART) {
    const int64_t to = end - from < PART ? end : from + PART;
    int32_t largest = 0;  // as bits, which are ordered like the sizes: whole numbers have a vectorised maximum
    for (int64_t i = from; i < to; ++i) {
      const int32_t size = to_bits(t.belief[i]) & 0x7fffffff;
      largest = size > largest ? size : largest;
    }
    if (largest <= to_bits(NEAR))
      loop<FILTER, FAIR_COIN_NEAR, DECISION, false>(s, t, from, to);
    else
      loop<FILTER, COIN, DECISION, false>(s, t, from, to);
  }
}

template <int FILTER, int PULL, int DECISION>
void with_prior(const Settings& s, const Tensors& t, int64_t begin, int64_t end) {
  if (PULL == COIN && !t.prior && s.prior == 0.0f) return to_fair_coin<FILTER, DECISION>(s, t, begin, end);
  if (PULL != KEEP && t.prior) return loop<FILTER, PULL, DECISION, true>(s, t, begin, end);
  return loop<FILTER, PULL, DECISION, false>(s, t, begin, end);
}

template <int FILTER, int PULL>
void with_decision(const Settings& s, const Tensors& t, int64_t begin, int64_t end) {
  switch (s.decision) {
    case DESCEND: return with_prior<FILTER, PULL, DESCEND>(s, t, begin, end);
    case BOX: return with_prior<FILTER, PULL, BOX>(s, t, begin, end);
    case FLIP: return with_prior<FILTER, PULL, FLIP>(s, t, begin, end);
    default: return with_prior<FILTER, PULL, FLIP_LARQ>(s, t, begin, end);
  }
}

template <int FILTER>
void with_pull(const Settings& s, const Tensors& t, int64_t begin, int64_t end) {
  switch (s.pull) {
    case COUPLED: return with_decision<FILTER, COUPLED>(s, t, begin, end);
    case AT_STEP: return with_decision<FILTER, AT_STEP>(s, t, begin, end);
    case COIN: return with_decision<FILTER, COIN>(s, t, begin, end);
    default: return with_decision<FILTER, KEEP>(s, t, begin, end);
  }
}

void step(const Settings& s, const Tensors& t, int64_t begin, int64_t end) {
  // what goes with one choice of the others only, see COMBINED in steps.py
  if (s.decision == WARY) return loop<IDENTITY, PACED, WARY, false>(s, t, begin, end);
  if (s.decision == CONSOLIDATING && s.pull == KEEP) return loop<QUOTIENT, KEEP, CONSOLIDATING, false>(s, t, begin, end);
  if (s.decision == CONSOLIDATING) return with_prior<QUOTIENT, COUPLED, CONSOLIDATING>(s, t, begin, end);
  if (s.pull == VARIANCE) return with_prior<IDENTITY, VARIANCE, DESCEND>(s, t, begin, end);
  if (s.pull == SETTLING) return loop<IDENTITY, SETTLING, DESCEND, true>(s, t, begin, end);
  switch (s.filter) {
    case AVERAGE: return with_pull<AVERAGE>(s, t, begin, end);
    case HEAVY_BALL: return with_pull<HEAVY_BALL>(s, t, begin, end);
    case QUOTIENT: return with_pull<QUOTIENT>(s, t, begin, end);
    case CASCADE: return with_pull<CASCADE>(s, t, begin, end);
    default: return with_pull<IDENTITY>(s, t, begin, end);
  }
}

// The location pulled to `prior` with `strength`, the precision to `strength`; S stays positive (Lin et al. 2020).
template <int FILTER, bool PRIOR>
void pair_loop(const Settings& given, const Tensors& location, const Tensors& precision, int64_t begin, int64_t end) {
  const Settings s = given;
  float *__restrict m = location.belief, *__restrict S = precision.belief;
  const float *__restrict g = location.gradient, *__restrict h = precision.gradient;
  float *__restrict average = location.first, *__restrict average_h = precision.first;
  const float *__restrict centre = location.prior, *__restrict strength = precision.prior;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float pull = PRIOR ? strength[i] : s.strength;
    float d = g[i] * s.gain + (m[i] - (PRIOR ? centre[i] : s.prior)) * pull;
    float change = h[i] * s.gain - S[i] + pull;
    if (FILTER == AVERAGE) {
      d = lerp(average[i], d, s.rate);
      change = lerp(average_h[i], change, s.rate);
      average[i] = d;
      average_h[i] = change;
      d = d / s.divisor;
      change = change / s.divisor;
    }
    const float x = change * s.lr / S[i], grown = S[i] * ((0.5f * x + 1.0f) * x + 1.0f);
    S[i] = grown;
    m[i] = m[i] - s.lr * d / grown;
  }
}

void pair(const Settings& s, const Tensors& location, const Tensors& precision, int64_t begin, int64_t end) {
  const bool prior = location.prior != nullptr;
  if (s.filter == AVERAGE && prior) return pair_loop<AVERAGE, true>(s, location, precision, begin, end);
  if (s.filter == AVERAGE) return pair_loop<AVERAGE, false>(s, location, precision, begin, end);
  if (prior) return pair_loop<IDENTITY, true>(s, location, precision, begin, end);
  return pair_loop<IDENTITY, false>(s, location, precision, begin, end);
}

// Bits of finite numbers lie below those of infinity. Four places at once keep more of the memory busy than one.
bool finite(const float* values, int64_t count) {
  const int64_t quarter = count / 4;
  int32_t largest = 0;
  for (int64_t i = 0; i < quarter; ++i) {
    const int32_t a = to_bits(values[i]) & 0x7fffffff, b = to_bits(values[i + quarter]) & 0x7fffffff;
    const int32_t c = to_bits(values[i + 2 * quarter]) & 0x7fffffff, d = to_bits(values[i + 3 * quarter]) & 0x7fffffff;
    const int32_t ab = a > b ? a : b, cd = c > d ? c : d, all = ab > cd ? ab : cd;
    largest = all > largest ? all : largest;
  }
  for (int64_t i = 4 * quarter; i < count; ++i) {
    const int32_t size = to_bits(values[i]) & 0x7fffffff;
    largest = size > largest ? size : largest;
  }
  return largest < 0x7f800000;
}

}  // namespace

const Steps STEPS = {step, pair, finite};

}  // namespace VARBNN_LEVEL
}  // namespace varbnn
