// Linear layers of real activations, for S networks in one call: cuts the work into tiles, and finishes them.
#include <cmath>
#include <cstring>

#include "pages.h"
#include "products.h"
#include "threads.h"

namespace varbnn {
namespace {

constexpr int64_t CHUNK = 32;      // words of inputs multiplied at a time, so that prepared rows stay in a near cache
constexpr int64_t PREPARED = 256;  // words of inputs prepared at a time, so that they stay in the second cache
constexpr int64_t FEW_BLOCKS = 8;  // least blocks of outputs in a unit of work

// Activations, weights and results of S networks. `own_*` are 1 where each network has its own, 0 where they share one.
template <class Value>
struct Problem {
  const Value* values;
  int64_t own_values;
  const uint32_t* weight;
  int64_t samples, rows, inputs, outputs;
  const float* scale;
  int64_t own_scale;
  const float* shift;
  int64_t own_shift;
  int activation;
  void* out;

  int64_t words() const { return ceil_div(inputs, WORD); }
  int64_t blocks() const { return ceil_div(outputs, BLOCK); }
  double work() const { return double(samples) * double(rows) * double(inputs) * double(outputs); }

  // What follows the product of network `s` from output `first` on.
  Finish finish(int64_t s, int64_t first) const {
    return {scale ? scale + s * own_scale * outputs + first : nullptr,
            shift ? shift + s * own_shift * outputs + first : nullptr, activation};
  }

  int64_t bytes() const { return 4 * samples * rows * (activation == SIGN ? ceil_div(outputs, WORD) : outputs); }

  // Where the results of one row begin, from output `first` (a multiple of 32) on.
  void* result(int64_t s, int64_t row, int64_t first) const {
    const int64_t index = s * rows + row;
    if (activation == SIGN) return static_cast<uint32_t*>(out) + index * ceil_div(outputs, WORD) + first / WORD;
    return static_cast<float*>(out) + index * outputs + first;
  }
};

// The problem as units of work: a group of rows of one network times a part of its blocks. They are numbered so that
// neighbours share what is costly to fetch: prepared rows where networks share their input, else a network's weights.
struct Units {
  int64_t groups, samples, parts, blocks_of_part;
  bool shared;

  template <class Value>
  Units(const Problem<Value>& p, int64_t rows, int threads) : samples(p.samples), shared(!p.own_values) {
    groups = ceil_div(p.rows, rows);
    int64_t wanted = groups * samples < 4 * int64_t(threads) && threads > 1 ? ceil_div(4 * threads, groups * samples) : 1;
    blocks_of_part = ceil_div(ceil_div(p.blocks(), wanted), 2) * 2;  // pairs, since a word of signs is two blocks
    if (blocks_of_part < FEW_BLOCKS) blocks_of_part = FEW_BLOCKS;
    parts = ceil_div(p.blocks(), blocks_of_part);
  }

  int64_t count() const { return groups * samples * parts; }
  int64_t part(int64_t unit) const { return unit % parts; }
  int64_t sample(int64_t unit) const { return shared ? unit / parts % samples : unit / parts / groups; }
  int64_t group(int64_t unit) const { return shared ? unit / parts / samples : unit / parts % groups; }
};

// Units `first` to `last`, on one thread. `finish(sums, input row, Finish, outputs, result)` completes one row.
template <class Value, class Prepared, class Sum, class Kernel, class FinishRow>
int compute(const Problem<Value>& p, const Kernel& kernel, const Units& units, int64_t first, int64_t last,
            FinishRow finish) {
  const int64_t words = p.words(), at_once = words < PREPARED ? words : PREPARED;
  const int64_t width = units.blocks_of_part * BLOCK;
  Buffer<Prepared> prepared(at_once * kernel.size(kernel.rows));
  Buffer<Sum> sums(kernel.rows * width);
  if (!prepared.get() || !sums.get()) return OUT_OF_MEMORY;
  int status = OK;
  const Value* ready = nullptr;  // whose rows are prepared, from which word on
  int64_t ready_from = -1;
  for (int64_t unit = first; unit < last; ++unit) {
    const int64_t s = units.sample(unit), group = units.group(unit), block = units.part(unit) * units.blocks_of_part;
    const int64_t row = p.rows * group / units.groups, rows = p.rows * (group + 1) / units.groups - row;
    const int64_t blocks = p.blocks() - block < units.blocks_of_part ? p.blocks() - block : units.blocks_of_part;
    const uint32_t* weight = p.weight + (s * p.blocks() + block) * words * BLOCK;
    const int64_t input_row = p.own_values * s * p.rows + row;
    const Value* values = p.values + input_row * p.inputs;
    for (int64_t from = 0; from < words; from += at_once) {
      const int64_t end = from + at_once < words ? from + at_once : words;
      if (ready != values || ready_from != from) {
        const int64_t inputs = (end * WORD < p.inputs ? end * WORD : p.inputs) - from * WORD;
        kernel.prepare(values + from * WORD, p.inputs, rows, inputs, prepared.get());
        ready = values, ready_from = from;
      }
      for (int64_t j = from; j < end; j += CHUNK) {
        const int64_t count = end - j < CHUNK ? end - j : CHUNK;
        kernel.multiply({prepared.get() + (j - from) * kernel.size(rows), rows, weight + j * BLOCK, count, blocks,
                         words * BLOCK, sums.get(), width, j == 0});
      }
    }
    const int64_t output = block * BLOCK, left = p.outputs - output, outputs = left < blocks * BLOCK ? left : blocks * BLOCK;
    for (int64_t r = 0; r < rows; ++r)
      if (int found = finish(sums.get() + r * width, input_row + r, p.finish(s, output), outputs,
                             p.result(s, row + r, output)))
        status = found;
  }
  return status;
}

int linear(const Problem<float>& p, int threads) {
  const RealKernel& kernel = real_kernel();
  const Units units(p, kernel.rows, threads);
  auto finish = [&](const float* sums, int64_t, const Finish& f, int64_t outputs, void* out) {
    return kernel.finish(sums, outputs, f, out);
  };
  expect_writes(p.out, p.bytes());
  return over_threads(useful_threads(threads, p.work(), units.count()), units.count(), [&](int64_t first, int64_t last) {
    return compute<float, float, float>(p, kernel, units, first, last, finish);
  });
}

// One row as whole numbers from -127 to 127, and the size of one: 0 for a row of zeros, NaN where it holds NaN or inf.
float quantise(const float* values, int64_t count, int8_t* whole) {
  constexpr int32_t INFINITE = 0x7f800000;  // as whole numbers, sizes of floats keep their order, NaN the largest
  int32_t size = 0;
  for (int64_t k = 0; k < count; ++k) {
    int32_t bits;
    std::memcpy(&bits, values + k, sizeof bits);
    bits &= 0x7fffffff;
    size = bits > size ? bits : size;
  }
  float largest;
  std::memcpy(&largest, &size, sizeof largest);
  const float unit = largest / 127.0f, factor = 127.0f / largest;
  if (size >= INFINITE || unit == 0) {
    std::memset(whole, 0, count);
    return size >= INFINITE ? NAN : 0.0f;
  }
  constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves no place for a fraction
  for (int64_t k = 0; k < count; ++k) {
    float scaled = values[k] * factor + ROUND - ROUND;
    scaled = scaled == scaled ? scaled : 0.0f;  // 0 * inf, beside numbers so small that 127 of them overflow `factor`
    scaled = scaled > 127.0f ? 127.0f : scaled;
    scaled = scaled < -127.0f ? -127.0f : scaled;
    whole[k] = int8_t(int32_t(scaled));
  }
  return unit;
}

int linear_int8(const Problem<float>& real, int threads) {
  const Int8Kernel& kernel = int8_kernel();
  const int64_t rows = (real.own_values ? real.samples : 1) * real.rows;
  Buffer<int8_t> whole(rows * real.inputs);
  Buffer<float> unit(rows);
  if (!whole.get() || !unit.get()) return OUT_OF_MEMORY;
  const double passes = double(rows) * double(real.inputs) * 32;  // what it costs to round
  over_threads(useful_threads(threads, passes, rows), rows, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r)
      unit.get()[r] = quantise(real.values + r * real.inputs, real.inputs, whole.get() + r * real.inputs);
    return 0;
  });
  const Problem<int8_t> p{whole.get(),    real.own_values, real.weight, real.samples,   real.rows,       real.inputs, real.outputs,
                          real.scale,     real.own_scale,  real.shift,  real.own_shift, real.activation, real.out};
  const Units units(p, kernel.rows, threads);
  auto finish = [&](const int32_t* sums, int64_t row, const Finish& f, int64_t outputs, void* out) {
    return kernel.finish(sums, unit.get()[row], outputs, f, out);
  };
  expect_writes(p.out, p.bytes());
  return over_threads(useful_threads(threads, p.work(), units.count()), units.count(), [&](int64_t first, int64_t last) {
    return compute<int8_t, int32_t, int32_t>(p, kernel, units, first, last, finish);
  });
}

}  // namespace

const RealKernel& real_kernel() {
  switch (active_level()) {
#ifdef VARBNN_HAS_AVX2
    case AVX2: return avx2::REAL;
#endif
#ifdef VARBNN_HAS_AVX512
    case AVX512: return avx512::REAL;
#endif
#ifdef VARBNN_HAS_NEON
    case NEON: return neon::REAL;
#endif
    default: return baseline::REAL;
  }
}

const Int8Kernel& int8_kernel() {
  switch (active_level()) {
#ifdef VARBNN_HAS_AVX2
    case AVX2: return avx2::INT8;
#endif
#ifdef VARBNN_HAS_AVX512
    case AVX512: return avx512::INT8;
#endif
#ifdef VARBNN_HAS_NEON
    case NEON: return neon::INT8;
#endif
    default: return baseline::INT8;
  }
}

}  // namespace varbnn

VARBNN_API int varbnn_cpu_linear(const float* values, int64_t own_values, const uint32_t* weight, int64_t samples,
                                 int64_t rows, int64_t inputs, int64_t outputs, const float* scale, int64_t own_scale,
                                 const float* shift, int64_t own_shift, int activation, void* out, int threads) {
  return varbnn::linear({values, own_values, weight, samples, rows, inputs, outputs, scale, own_scale, shift, own_shift,
                         activation, out},
                        threads);
}

// Inputs beyond 2^24 could overflow the 32-bit sums.
VARBNN_API int varbnn_cpu_linear_int8(const float* values, int64_t own_values, const uint32_t* weight, int64_t samples,
                                      int64_t rows, int64_t inputs, int64_t outputs, const float* scale,
                                      int64_t own_scale, const float* shift, int64_t own_shift, int activation,
                                      void* out, int threads) {
  return varbnn::linear_int8({values, own_values, weight, samples, rows, inputs, outputs, scale, own_scale, shift,
                              own_shift, activation, out},
                             threads);
}
