// The loop of relaxing.h; included once for every instruction set.
#include "coin.h"
#include "relaxing.h"

namespace varbnn {
namespace VARBNN_LEVEL {
namespace {

constexpr int COUNTERS = RELAXED_GROUP / 4;

// Word w of counter l decides entry COUNTERS * w + l of the group.
inline void group_words(const Stream& stream, int64_t group, uint32_t words[RELAXED_GROUP]) {
  const uint64_t first = uint64_t(group) * COUNTERS;  // a multiple of 64: adding l < 64 carries nothing
  uint32_t *c0 = words, *c1 = c0 + COUNTERS, *c2 = c1 + COUNTERS, *c3 = c2 + COUNTERS;
  for (int l = 0; l < COUNTERS; ++l) {
    c0[l] = uint32_t(first) + uint32_t(l);
    c1[l] = uint32_t(first >> 32);
    c2[l] = 0;
    c3[l] = stream.layer;
  }
  for (int round = 0; round < ROUNDS; ++round) {  // philox.h, all counters side by side
    const uint32_t key0 = stream.key[0][round], key1 = stream.key[1][round];
#pragma omp simd
    for (int l = 0; l < COUNTERS; ++l) {
      const uint64_t p0 = product(c0[l], MULTIPLIER[0]), p1 = product(c2[l], MULTIPLIER[1]);
      c0[l] = uint32_t(p1 >> 32) ^ c1[l] ^ key0;
      c1[l] = uint32_t(p1);
      c2[l] = uint32_t(p0 >> 32) ^ c3[l] ^ key1;
      c3[l] = uint32_t(p0);
    }
  }
}

// Half the log odds of (word + 1/2) / 2^32.
VARBNN_INLINE float half_log_odds(uint32_t word) {
  const bool lower = word < 0x80000000u;
  const int32_t smaller = int32_t(lower ? word : ~word);
  const float share = (float(smaller) + 0.5f) * 0x1p-32f;  // at most 1/2, and near 0 exact to 1e-7 of itself
  const float size = 0.5f * log_of_positive((1.0f - share) / share);
  return lower ? -size : size;
}

template <bool EUCLIDEAN>
void loop(const Relaxing& given, const uint32_t* words, int64_t begin, int count) {
  const float sharpness = 1.0f / given.relaxation;
  const float* __restrict natural = given.natural + begin;
  float *__restrict weight = given.weight + begin, *__restrict factor = given.factor + begin;
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const float belief = natural[i], scaled = (belief + half_log_odds(words[i])) * sharpness;
    const float size = std::fabs(scaled), odds = exp_of_negative(-2.0f * size), share = 1.0f / (1.0f + odds);
    weight[i] = std::copysign((1.0f - odds) * share, scaled);
    if (EUCLIDEAN) {
      factor[i] = 4.0f * odds * share * share * sharpness;
    } else {  // sech(scaled)^2 / sech(belief)^2 by its square root; below 1e-37 it is 0, numbers that small are slow
      const float certain = std::fabs(belief), apart = certain - size;
      const float bounded = apart < -42.5f ? -42.5f : apart > 60.0f ? 60.0f : apart;
      const float power = apart < -42.5f ? 0.0f : exp_within(bounded);
      const float root = power * (1.0f + exp_of_negative(-2.0f * certain)) * share;
      factor[i] = root * sharpness * root;
    }
  }
}

void relax(const Relaxing& given, const Stream& stream, int64_t begin, int64_t end) {
  alignas(64) uint32_t words[RELAXED_GROUP];
  for (int64_t from = begin; from < end; from += RELAXED_GROUP) {
    group_words(stream, from / RELAXED_GROUP, words);
    const int count = end - from < RELAXED_GROUP ? int(end - from) : RELAXED_GROUP;
    given.euclidean ? loop<true>(given, words, from, count) : loop<false>(given, words, from, count);
  }
}

}  // namespace

const Relax RELAX = relax;

}  // namespace VARBNN_LEVEL
}  // namespace varbnn
