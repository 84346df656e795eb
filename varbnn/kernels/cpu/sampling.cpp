// varbnn_cpu_sample_blocks and varbnn_cpu_draw: the tiles of a matrix shared out among threads.
#include "sampling.h"

#include "pages.h"
#include "threads.h"

namespace varbnn {
namespace {

// One drawn weight takes about as long as this many multiply-adds.
constexpr double COST = 25;

struct Kernels {
  bool (*sample)(const SignTile&, const Stream&, uint32_t, int64_t, uint32_t*, int64_t);
  void (*draw)(const SignTile&, const Stream&, uint32_t, float*);
};

Kernels kernels() {
  switch (active_level()) {
#ifdef VARBNN_HAS_AVX512
    case AVX512:
      return {avx512::sample_tile, avx512::draw_tile};
#endif
#ifdef VARBNN_HAS_AVX2
    case AVX2:
      return {avx2::sample_tile, avx2::draw_tile};
#endif
    default:  // also NEON, for which the compiler vectorises these loops
      return {baseline::sample_tile, baseline::draw_tile};
  }
}

struct Matrix {
  const float* natural;
  int64_t outputs, inputs;

  int64_t across() const { return ceil_div(inputs, TILE); }
  int64_t tiles() const { return ceil_div(outputs, BLOCK) * across(); }

  SignTile tile(int64_t block, int64_t group) const {
    const int64_t row = block * BLOCK, column = group * TILE;
    return {natural + row * inputs + column,
            inputs,
            static_cast<int>(outputs - row < BLOCK ? outputs - row : BLOCK),
            static_cast<int>(inputs - column < TILE ? inputs - column : TILE),
            static_cast<uint32_t>(row),
            static_cast<uint32_t>(group * 16)};
  }
};

}  // namespace
}  // namespace varbnn

using namespace varbnn;

// blocks: int32 (count, ceil(N / 16), ceil(K / 32), 16). FOUND_NAN leaves them unfinished.
VARBNN_API int varbnn_cpu_sample_blocks(const float* natural, int64_t outputs, int64_t inputs, int64_t seed,
                                        int64_t layer, int64_t first, int64_t count, uint32_t* blocks, int threads) {
  const Matrix matrix{natural, outputs, inputs};
  const Stream stream = make_stream(static_cast<uint64_t>(seed), static_cast<uint32_t>(layer));
  const Kernels level = kernels();
  const int64_t across = matrix.across(), words = ceil_div(inputs, WORD);
  const int64_t stride = ceil_div(outputs, BLOCK) * words * BLOCK;
  expect_writes(blocks, 4 * count * stride);
  const auto body = [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t block = t / across, group = t % across;
      uint32_t* place = blocks + (block * words + group * TILE_WORDS) * BLOCK;
      if (!level.sample(matrix.tile(block, group), stream, static_cast<uint32_t>(first), count, place, stride))
        return int(FOUND_NAN);
    }
    return int(OK);
  };
  const double work = COST * double(count) * double(outputs) * double(inputs);
  return over_threads(useful_threads(threads, work, matrix.tiles()), matrix.tiles(), body);
}

// signs: float32 (N, K), ±1, or NaN where the belief is.
VARBNN_API int varbnn_cpu_draw(const float* natural, int64_t outputs, int64_t inputs, int64_t seed, int64_t layer,
                               int64_t sample, float* signs, int threads) {
  const Matrix matrix{natural, outputs, inputs};
  const Stream stream = make_stream(static_cast<uint64_t>(seed), static_cast<uint32_t>(layer));
  const Kernels level = kernels();
  const int64_t across = matrix.across();
  expect_writes(signs, 4 * outputs * inputs);
  const auto body = [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t block = t / across, group = t % across;
      float* place = signs + block * BLOCK * inputs + group * TILE;
      level.draw(matrix.tile(block, group), stream, static_cast<uint32_t>(sample), place);
    }
    return int(OK);
  };
  const double work = COST * double(outputs) * double(inputs);
  return over_threads(useful_threads(threads, work, matrix.tiles()), matrix.tiles(), body);
}
