// varbnn_cpu_linear_signs and varbnn_cpu_pack_signs: products of signs, and packing them, shared out among threads.
#include "signs.h"

#include "pages.h"
#include "threads.h"

namespace varbnn {
namespace {

struct Kernels {
  MultiplySigns multiply;
  PackSigns pack;
};

Kernels kernels() {
  switch (active_level()) {
#ifdef VARBNN_HAS_AVX512
    case AVX512:
      return {avx512::multiply_signs, avx512::pack_signs};
#endif
#ifdef VARBNN_HAS_AVX2
    case AVX2:
      return {avx2::multiply_signs, avx2::pack_signs};
#endif
    default:  // also NEON, for which the compiler vectorises these loops
      return {baseline::multiply_signs, baseline::pack_signs};
  }
}

// How much faster than a multiply-add of real activations, which `useful_threads` counts in.
constexpr double SPEED = 10;
constexpr double PACKING = 20;  // one packed sign in multiply-adds

}  // namespace
}  // namespace varbnn

using namespace varbnn;

// values: packed signs (S or 1, M, ceil(K / 32)); out: float32 (S, M, N), or packed signs (S, M, ceil(N / 32)).
VARBNN_API int varbnn_cpu_linear_signs(const uint32_t* values, int64_t own_values, const uint32_t* weight,
                                       int64_t samples, int64_t rows, int64_t inputs, int64_t outputs,
                                       const float* scale, int64_t own_scale, const float* shift, int64_t own_shift,
                                       int activation, void* out, int threads) {
  const MultiplySigns multiply = kernels().multiply;
  const int64_t words = ceil_div(inputs, WORD), pairs = ceil_div(outputs, PAIR);
  const int64_t width = activation == SIGN ? ceil_div(outputs, WORD) : outputs;  // of one result, in 4 bytes
  expect_writes(out, 4 * samples * rows * width);
  // a unit is one pair of blocks of one network: its weights are read once for all rows
  const auto body = [&](int64_t first, int64_t last) {
    int worst = OK;
    while (first < last) {
      const int64_t s = first / pairs, pair = first % pairs;
      const int64_t count = last - first < pairs - pair ? last - first : pairs - pair;
      const Finish finish = {scale ? scale + (own_scale ? s * outputs : 0) : nullptr,
                             shift ? shift + (own_shift ? s * outputs : 0) : nullptr, activation};
      const SignProduct product = {values + (own_values ? s * rows * words : 0),
                                   rows,
                                   weight + s * ceil_div(outputs, BLOCK) * words * BLOCK,
                                   inputs,
                                   outputs,
                                   pair,
                                   pair + count,
                                   finish,
                                   static_cast<float*>(out) + s * rows * width};
      const int status = multiply(product);
      if (status > worst) worst = status;
      first += count;
    }
    return worst;
  };
  const int64_t units = samples * pairs;
  const double work = double(samples) * double(rows) * double(inputs) * double(outputs) / SPEED;
  return over_threads(useful_threads(threads, work, units), units, body);
}

// packed: int32 (rows, ceil(length / 32)); counts: how many of each row are +1.
VARBNN_API int varbnn_cpu_pack_signs(const float* values, int64_t rows, int64_t length, uint32_t* packed,
                                     int32_t* counts, int threads) {
  const PackSigns pack = kernels().pack;
  const int64_t words = ceil_div(length, WORD);
  const auto body = [&](int64_t first, int64_t last) {
    const bool fine =
        pack(values + first * length, last - first, length, packed + first * words, counts + first);
    return int(fine ? OK : FOUND_NAN);
  };
  return over_threads(useful_threads(threads, PACKING * double(rows) * double(length), rows), rows, body);
}
