// Products of signs and packing, written once for every width of vector. A level supplies `V`:
//
//   Lanes                 its vectors of floats and whole numbers
//   ROWS                  most rows that it counts at once
//   bits(Ints)            one bit for each lane: its sign bit
//   count<ROWS, BLOCKS, FETCH>(values, words, weight, counts)   popcounts of values xor weight: counts[row][output]
//
// Rows of `values` lie `words` apart, blocks of weights 16 * words. FETCH: ask for the next weights, which are all that a
// single row has to wait for; the processor's own prefetch ends with every page.
#pragma once
#include <algorithm>

#include "signs.h"
#include "vectors.h"

namespace varbnn {
namespace {

// Sum and carry of three numbers of one bit in every place; the sum waits for `c` last.
template <class Bits>
inline void add_bits(Bits& sum, Bits& carry, Bits a, Bits b, Bits c) {
  const Bits either = a ^ b;
  carry = (a & b) | (either & c);
  sum = either ^ c;
}

// Popcounts in every 32-bit lane of `length` words, for machines whose popcount is dear: eight words are first added up
// bit by bit (Harley and Seal), which leaves one popcount where there were eight. V::bytes(Words) counts every byte,
// V::sum(Words) adds up the four bytes of each lane.
template <class V, class Next>
inline typename V::Lanes::Words count_words(int64_t length, Next next) {
  using Words = typename V::Lanes::Words;
  constexpr int64_t FULL = 8 * 31;  // words until a byte could overflow, at 8 for eight words
  Words ones = {}, twos = {}, fours = {}, total = {};
  int64_t j = 0;
  while (j + 8 <= length) {
    Words eight_counts = {};
    for (const int64_t end = std::min(length - 7, j + FULL); j < end; j += 8) {
      Words twos_a, twos_b, fours_a, fours_b, eights;
      add_bits(ones, twos_a, next(j), next(j + 1), ones);
      add_bits(ones, twos_b, next(j + 2), next(j + 3), ones);
      add_bits(twos, fours_a, twos_a, twos_b, twos);
      add_bits(ones, twos_a, next(j + 4), next(j + 5), ones);
      add_bits(ones, twos_b, next(j + 6), next(j + 7), ones);
      add_bits(twos, fours_b, twos_a, twos_b, twos);
      add_bits(fours, eights, fours_a, fours_b, fours);
      eight_counts += V::bytes(eights);
    }
    total += V::sum(eight_counts) << 3;
  }
  Words rest = (V::bytes(fours) << 2) + (V::bytes(twos) << 1) + V::bytes(ones);  // at most 56 in a byte
  for (; j < length; ++j) rest += V::bytes(next(j));                            // and 56 more
  return total + V::sum(rest);
}

// Counts for V::count by the above, one vector of outputs at a time.
template <class V, int ROWS, int BLOCKS, bool FETCH>
inline void count_by_adding(const uint32_t* values, int64_t words, const uint32_t* weight, int32_t counts[][PAIR]) {
  using Words = typename V::Lanes::Words;
  for (int row = 0; row < ROWS; ++row)
    for (int block = 0; block < BLOCKS; ++block)
      for (int lane = 0; lane < BLOCK; lane += V::Lanes::LANES) {
        const uint32_t* own = weight + block * words * BLOCK + lane;
        const uint32_t* row_values = values + row * words;
        const Words total = count_words<V>(words, [=](int64_t j) {
          if (FETCH) __builtin_prefetch(own + (words + j) * BLOCK);
          return load<Words>(own + j * BLOCK) ^ row_values[j];
        });
        store(counts[row] + block * BLOCK + lane, total);
      }
}

// Scale, shift and activation of one row's 32 outputs, of which `count` exist. True: a sign of NaN.
template <class V>
inline bool finish_pair(const int32_t* counts, int64_t inputs, int count, const Finish& finish, void* out) {
  using Floats = typename V::Lanes::Floats;
  using Words = typename V::Lanes::Words;
  using Ints = typename V::Lanes::Ints;
  constexpr int LANES = V::Lanes::LANES;
  uint32_t bits = 0;
  Ints nans = {};
  alignas(64) float results[PAIR];
  const bool whole = count == PAIR;
  float* floats = whole ? static_cast<float*>(out) : results;
  for (int i = 0; i < count; i += LANES) {
    const Words product = static_cast<uint32_t>(inputs) - 2u * load<Words>(counts + i);  // may wrap on the way
    Floats value = __builtin_convertvector(reinterpret_cast<Ints>(product), Floats);
    if (finish.scale) value = value * load<Floats>(finish.scale + i);
    if (finish.shift) value = value + load<Floats>(finish.shift + i);
    if (finish.activation == SIGN) {
      nans |= value != value;
      bits |= V::bits(value >= 0.0f) << i;
      continue;
    }
    if (finish.activation == RELU) value = value < 0.0f ? Floats{} : value;  // NaN stays
    store(floats + i, value);
  }
  if (finish.activation == SIGN) {
    *static_cast<uint32_t*>(out) = whole ? bits : bits & ((1u << count) - 1u);
    return V::bits(nans) != 0;
  }
  if (!whole) std::memcpy(out, results, sizeof(float) * count);
  return false;
}

template <class V, int ROWS, int BLOCKS, bool FETCH = false>
inline bool multiply_rows(const SignProduct& product, int64_t row, int64_t pair, const Finish& finish) {
  const int64_t words = ceil_div(product.inputs, WORD), left = product.outputs - pair * PAIR;
  const int count = static_cast<int>(left < PAIR ? left : PAIR);
  alignas(64) int32_t counts[ROWS][PAIR];
  V::template count<ROWS, BLOCKS, FETCH>(product.values + row * words, words, product.weight + pair * PAIR * words,
                                         counts);
  bool found_nan = false;
  for (int r = 0; r < ROWS; ++r) {
    void* out = product.finish.activation == SIGN
                    ? static_cast<void*>(static_cast<uint32_t*>(product.out) +
                                         (row + r) * ceil_div(product.outputs, WORD) + pair)
                    : static_cast<void*>(static_cast<float*>(product.out) + (row + r) * product.outputs + pair * PAIR);
    found_nan |= finish_pair<V>(counts[r], product.inputs, count, finish, out);
    for (int ahead = 0; ahead < 2; ++ahead)  // where the next pair's results go: rows are too far apart to be foreseen
      __builtin_prefetch(static_cast<float*>(out) + PAIR + ahead * BLOCK, 1);
  }
  return found_nan;
}

template <class V, int BLOCKS>
inline bool multiply_pair(const SignProduct& product, int64_t row, int64_t last_row, int64_t pair,
                          const Finish& finish) {
  if (last_row == 1) return multiply_rows<V, 1, BLOCKS, true>(product, row, pair, finish);
  bool found_nan = false;
  for (; row + V::ROWS <= last_row; row += V::ROWS)
    found_nan |= multiply_rows<V, V::ROWS, BLOCKS>(product, row, pair, finish);
  for (; row < last_row; ++row) found_nan |= multiply_rows<V, 1, BLOCKS>(product, row, pair, finish);
  return found_nan;
}

// Rows from `row` up to `last_row` with one pair.
template <class V>
inline bool multiply_pair(const SignProduct& product, int64_t row, int64_t last_row, int64_t pair) {
  const int64_t left = product.outputs - pair * PAIR;
  Finish finish = product.finish;
  float scale[PAIR] = {}, shift[PAIR] = {};  // where fewer than 32 outputs are left
  if (finish.scale) finish.scale += pair * PAIR;
  if (finish.shift) finish.shift += pair * PAIR;
  if (left < PAIR) {
    if (finish.scale) finish.scale = std::copy(finish.scale, finish.scale + left, scale) - left;
    if (finish.shift) finish.shift = std::copy(finish.shift, finish.shift + left, shift) - left;
  }
  return left > BLOCK ? multiply_pair<V, 2>(product, row, last_row, pair, finish)
                      : multiply_pair<V, 1>(product, row, last_row, pair, finish);
}

// As many pairs at a time as stay in the second cache, and few rows, whose results are then written from left to right:
// columns of results a power of two apart would fight for the same lines of the caches.
template <class V>
int multiply_signs_with(const SignProduct& product) {
  constexpr int64_t CACHED_WORDS = 1 << 16, ROWS_AT_ONCE = 16;
  const int64_t at_once = std::max<int64_t>(1, CACHED_WORDS / (ceil_div(product.inputs, WORD) * PAIR));
  bool found_nan = false;
  for (int64_t first = product.first_pair; first < product.last_pair; first += at_once)
    for (int64_t row = 0; row < product.rows; row += ROWS_AT_ONCE)
      for (int64_t pair = first; pair < std::min(first + at_once, product.last_pair); ++pair)
        found_nan |= multiply_pair<V>(product, row, std::min(row + ROWS_AT_ONCE, product.rows), pair);
  return found_nan ? FOUND_NAN : OK;
}

template <class V>
bool pack_signs_with(const float* values, int64_t rows, int64_t length, uint32_t* packed, int32_t* counts) {
  using Floats = typename V::Lanes::Floats;
  typename V::Lanes::Ints nans = {};
  for (int64_t row = 0; row < rows; ++row) {
    int32_t count = 0;
    for (int64_t start = 0; start < length; start += WORD, values += WORD) {
      float padded[WORD];
      const float* from = values;
      uint32_t word = 0;
      if (length - start < WORD) {
        for (int64_t i = 0; i < WORD; ++i) padded[i] = start + i < length ? values[i] : -1.0f;
        from = padded;
      }
      for (int i = 0; i < WORD; i += V::Lanes::LANES) {
        const Floats own = load<Floats>(from + i);
        nans |= own != own;
        word |= V::bits(own >= 0.0f) << i;
      }
      *packed++ = word;
      count += __builtin_popcount(word);
    }
    values -= ceil_div(length, WORD) * WORD - length;
    counts[row] = count;
  }
  return V::bits(nans) == 0;
}

}  // namespace
}  // namespace varbnn
