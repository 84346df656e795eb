// The tile kernel, written once for every width of vector. A level supplies `V`:
//
//   vec                   LANES 64-bit lanes, each with one counter word in its low half; what is above it is ignored
//   splat(u32)            the word in every lane
//   mul(vec, vec)         64-bit products of the low halves
//   high(vec)             the high halves moved down
//   flip(a, b, c)         a ^ b ^ c
//   store(u32*, even, odd)            the low halves of both, alternating
//   compare(vec[2][4], u16*, bits)   which halves of four words reach their bounds; true where one is within REACH
//   expand(word, float*, count)      the bits as ±1
//   Lanes, madd(a, b, c), clamp(y), reciprocal(x)    floats: a * b + c, y within ±20, and 1 / x to 1e-6 of itself
//
// A part is 2 * LANES counters, held as even and odd ones: vec[odd][word]. Philox is linear enough that much of the first three rounds
// depends only on the tile, on the sample, or on the output; only what depends on all of them is done per output.
#pragma once
#include "sampling.h"
#include "threshold.h"

namespace varbnn {
namespace {

// Lower bounds of the upper 16 bits of the thresholds: t >> 16 is `lower` or lower + 1. Finding them takes a third of
// the time of the thresholds themselves, which only one weight in 32,768 needs: see `settle`.
constexpr uint32_t REACH = 1;

struct Bounds {
  alignas(64) uint16_t lower[BLOCK][TILE];
  bool has_nan;
};

// 65536 / (1 + exp(2 natural)), to within 0.1, less the margin for that.
template <class V>
inline typename V::Lanes::Floats approximate(typename V::Lanes::Floats natural) {
  using Floats = typename V::Lanes::Floats;
  using Ints = typename V::Lanes::Ints;
  const Floats y = V::clamp(natural * 2.88539008f);     // 2^y = exp(2 natural)
  const Floats shifted = y + 12582912.0f;               // 1.5 * 2^23: rounds, and leaves the whole part in the low bits
  const Floats f = y - (shifted - 12582912.0f);         // at most 1/2 in size
  Floats p = V::madd(Floats{} + 9.5605102e-3f, f, Floats{} + 5.5917039e-2f);  // 2^f to 3e-6 of itself
  p = V::madd(p, f, Floats{} + 2.4024981e-1f);
  p = V::madd(p, f, Floats{} + 6.9312197e-1f);
  p = V::madd(p, f, Floats{} + 9.9999920e-1f);
  const Floats power = reinterpret_cast<Floats>(reinterpret_cast<Ints>(p) + (reinterpret_cast<Ints>(shifted) << 23));
  return V::madd(V::reciprocal(power + 1.0f), Floats{} + 65536.0f, Floats{} - 0.125f);
}

// Inputs and outputs that do not exist get the largest bound.
template <class V>
void find_bounds(const SignTile& tile, Bounds& bounds) {
  using Lanes = typename V::Lanes;
  using Words = typename Lanes::Ints;
  Words nans = {};
  for (int row = 0; row < tile.rows; ++row) {
    const float* natural = tile.natural + row * tile.stride;
    alignas(64) float padded[TILE] = {};
    if (tile.columns < TILE) {
      std::memcpy(padded, natural, sizeof(float) * tile.columns);
      natural = padded;
    }
    for (int i = 0; i < TILE; i += Lanes::LANES) {
      typename Lanes::Floats own;
      std::memcpy(&own, natural + i, sizeof own);
      nans |= own != own;
      const auto upper = __builtin_convertvector(__builtin_convertvector(approximate<V>(own), Words),
                                                 typename Lanes::Halves);
      std::memcpy(bounds.lower[row] + i, &upper, sizeof upper);
    }
    for (int i = tile.columns; i < TILE; ++i) bounds.lower[row][i] = 0xFFFF;
  }
  bounds.has_nan = false;
  for (int i = 0; i < Lanes::LANES; ++i) bounds.has_nan |= nans[i] != 0;
}

// The sign of one weight whose upper 16 bits, `upper`, are too close to its threshold's to tell.
bool decide(const SignTile& tile, const Stream& stream, uint32_t sample, int row, int column, uint32_t upper) {
  const uint32_t bound = threshold(tile.natural[row * tile.stride + column]);
  const int place = column % WORD;
  uint32_t c[4] = {tile.first_group + static_cast<uint32_t>(place / 2), tile.first_row + static_cast<uint32_t>(row),
                   sample, stream.layer | LOW_STREAM};
  philox(stream, c);
  const uint32_t lower = (c[column / WORD] >> (16 * (place % 2))) & 0xFFFF;
  return bound != NEVER && ((upper << 16) | lower) >= bound;
}

template <class V>
struct Sampler {
  using vec = typename V::vec;
  static constexpr int PARTS = 16 / (2 * V::LANES);
  static constexpr int HALVES = 4 * V::LANES;  // 16-bit halves in a word of a part

  // What depends on the tile alone: the second product of round 2, and the low half of the first of round 1.
  vec high2[PARTS][2], low2[PARTS][2], low1[PARTS][2];
  vec key[2][ROUNDS];
  const SignTile& tile;
  const Stream& stream;

  Sampler(const SignTile& t, const Stream& s) : tile(t), stream(s) {
    for (int half = 0; half < 2; ++half)
      for (int round = 0; round < ROUNDS; ++round) key[half][round] = V::splat(s.key[half][round]);
    const vec mixed = V::splat(s.layer ^ s.key[1][0]);
    for (int part = 0; part < PARTS; ++part)
      for (int odd = 0; odd < 2; ++odd) {
        const vec counter = V::counters(t.first_group + part * 2 * V::LANES + odd);
        const vec first = V::mul(counter, V::splat(MULTIPLIER[0]));
        const vec second = V::mul(V::flip(V::high(first), mixed, V::splat(0)), V::splat(MULTIPLIER[1]));
        low1[part][odd] = first;
        low2[part][odd] = second;
        high2[part][odd] = V::high(second);
      }
  }

  // The words of `ROWS` outputs from `row` on, as bits[output][word].
  template <int ROWS>
  inline __attribute__((always_inline)) void rows(const Bounds& bounds, uint32_t sample, int row,
                                                  uint32_t bits[][TILE_WORDS]) const {
    const vec m0 = V::splat(MULTIPLIER[0]), m1 = V::splat(MULTIPLIER[1]);
    const uint64_t of_sample = product(sample, MULTIPLIER[1]);
    const vec flip0 = V::splat(static_cast<uint32_t>(of_sample) ^ stream.key[0][1]);
    for (int n = 0; n < ROWS; ++n)
      for (int w = 0; w < TILE_WORDS; ++w) bits[n][w] = 0;
    for (int part = 0; part < PARTS; ++part) {
      vec c[ROWS][2][4];
      for (int odd = 0; odd < 2; ++odd) {
        const vec third = V::mul(V::flip(high2[part][odd], flip0, V::splat(0)), m0);  // the same for all outputs
        const vec third_high = V::flip(V::high(third), key[1][2], V::splat(0));
        for (int n = 0; n < ROWS; ++n) {
          const uint32_t number = tile.first_row + static_cast<uint32_t>(row + n);
          const uint64_t second =
              product(static_cast<uint32_t>(of_sample >> 32) ^ number ^ stream.key[0][0], MULTIPLIER[0]);
          const vec c2 = V::flip(low1[part][odd], V::splat(static_cast<uint32_t>(second >> 32) ^ stream.key[1][1]),
                                 V::splat(0));
          const vec p1 = V::mul(c2, m1);
          vec* own = c[n][odd];
          own[0] = V::flip(V::high(p1), low2[part][odd], key[0][2]);
          own[1] = p1;
          own[2] = V::flip(third_high, V::splat(static_cast<uint32_t>(second)), V::splat(0));
          own[3] = third;
        }
      }
      for (int round = 3; round < ROUNDS; ++round)
        for (int n = 0; n < ROWS; ++n)
          for (int odd = 0; odd < 2; ++odd) {
            vec* own = c[n][odd];
            const vec p0 = V::mul(own[0], m0), p1 = V::mul(own[2], m1);
            own[0] = V::flip(V::high(p1), own[1], key[0][round]);
            own[1] = p1;
            own[2] = V::flip(V::high(p0), own[3], key[1][round]);
            own[3] = p0;
          }
      for (int n = 0; n < ROWS; ++n) finish(bounds, sample, row + n, part, c[n], bits[n]);
    }
  }

  inline __attribute__((always_inline)) void finish(const Bounds& bounds, uint32_t sample, int row, int part,
                                                    const vec c[2][4], uint32_t bits[TILE_WORDS]) const {
    const uint16_t* lower = bounds.lower[row] + part * HALVES;
    uint32_t own[TILE_WORDS];
    if (__builtin_expect(V::compare(c, lower, own), 0)) {
      vec kept[2][TILE_WORDS];  // a copy, so that `c` itself can stay in registers
      uint32_t settled[TILE_WORDS];
      for (int w = 0; w < TILE_WORDS; ++w) kept[0][w] = c[0][w], kept[1][w] = c[1][w], settled[w] = own[w];
      settle(bounds, sample, row, part, kept, settled);
      for (int w = 0; w < TILE_WORDS; ++w) own[w] = settled[w];
    }
    for (int w = 0; w < TILE_WORDS; ++w) bits[w] |= own[w] << (part * HALVES % 32);
  }

  // Some upper halves are too close to their bounds: look at each.
  __attribute__((noinline)) void settle(const Bounds& bounds, uint32_t sample, int row, int part, const vec c[2][4],
                                        uint32_t own[TILE_WORDS]) const {
    uint32_t words[2 * V::LANES];
    for (int w = 0; w < TILE_WORDS; ++w) {
      V::store(words, c[0][w], c[1][w]);
      for (int i = 0; i < HALVES; ++i) {
        const int column = w * WORD + part * HALVES + i;
        const uint32_t upper = (words[i / 2] >> (16 * (i % 2))) & 0xFFFF;
        const uint32_t excess = (upper - bounds.lower[row][column]) & 0xFFFF;
        if (column >= tile.columns || excess > REACH) continue;
        const uint32_t sign = decide(tile, stream, sample, row, column, upper);
        own[w] = (own[w] & ~(1u << i)) | (sign << i);
      }
    }
  }
};

// All words of a tile of one sample, bits that do not exist are 0: lines[word][output].
template <class V>
inline void sample_lines(const Sampler<V>& sampler, const Bounds& bounds, uint32_t sample,
                         const uint32_t valid[TILE_WORDS], uint32_t* lines) {
  constexpr int ROWS = V::ROWS;
  const int rows = sampler.tile.rows;
  int row = 0;
  for (; row + ROWS <= rows; row += ROWS) {
    uint32_t bits[ROWS][TILE_WORDS];
    sampler.template rows<ROWS>(bounds, sample, row, bits);
    for (int n = 0; n < ROWS; ++n)
      for (int w = 0; w < TILE_WORDS; ++w) lines[w * BLOCK + row + n] = bits[n][w] & valid[w];
  }
  for (; row < rows; ++row) {
    uint32_t bits[1][TILE_WORDS];
    sampler.template rows<1>(bounds, sample, row, bits);
    for (int w = 0; w < TILE_WORDS; ++w) lines[w * BLOCK + row] = bits[0][w] & valid[w];
  }
}

inline void valid_bits(int columns, uint32_t valid[TILE_WORDS]) {
  for (int w = 0; w < TILE_WORDS; ++w) {
    const int left = columns - w * WORD;
    valid[w] = left >= WORD ? ~0u : left <= 0 ? 0u : (1u << left) - 1u;
  }
}

template <class V>
bool sample_tile_with(const SignTile& tile, const Stream& stream, uint32_t first, int64_t count, uint32_t* blocks,
                      int64_t stride) {
  Bounds bounds;
  find_bounds<V>(tile, bounds);
  if (bounds.has_nan) return false;
  uint32_t valid[TILE_WORDS];
  valid_bits(tile.columns, valid);
  const Sampler<V> sampler(tile, stream);
  const int lines = static_cast<int>(ceil_div(tile.columns, WORD));
  const bool whole = lines == TILE_WORDS && tile.rows == BLOCK;
  for (int64_t s = 0; s < count; ++s) {
    uint32_t* place = blocks + s * stride;
    const uint32_t sample = first + static_cast<uint32_t>(s);
    if (whole) {
      sample_lines<V>(sampler, bounds, sample, valid, place);
    } else {
      uint32_t words[TILE_WORDS * BLOCK] = {};
      sample_lines<V>(sampler, bounds, sample, valid, words);
      std::memcpy(place, words, sizeof(uint32_t) * BLOCK * lines);
    }
  }
  return true;
}

template <class V>
void draw_tile_with(const SignTile& tile, const Stream& stream, uint32_t sample, float* signs) {
  Bounds bounds;
  find_bounds<V>(tile, bounds);
  uint32_t valid[TILE_WORDS];
  valid_bits(tile.columns, valid);
  const Sampler<V> sampler(tile, stream);
  uint32_t words[TILE_WORDS * BLOCK];
  sample_lines<V>(sampler, bounds, sample, valid, words);
  for (int row = 0; row < tile.rows; ++row) {
    float* place = signs + row * tile.stride;
    for (int w = 0; w * WORD < tile.columns; ++w)
      V::expand(words[w * BLOCK + row], place + w * WORD, tile.columns - w * WORD);
    if (bounds.has_nan)
      for (int i = 0; i < tile.columns; ++i) {
        const float belief = tile.natural[row * tile.stride + i];
        if (belief != belief) place[i] = belief;
      }
  }
}

}  // namespace
}  // namespace varbnn
