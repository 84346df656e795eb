// Products of real activations with packed ±1 weights. The driver in real.cpp cuts the work into tiles of a few rows;
// the kernels of each instruction set compute one tile.
//
// A kernel first prepares its rows (tables of partial sums, or only a copy padded with zeros), then multiplies them
// with as many blocks of weights as there are. How rows are prepared is the kernel's own affair; only `size` is known,
// the numbers prepared of a word of 32 inputs of all rows of a tile; those of word j begin at j * size(rows).
#pragma once
#include "level.h"

namespace varbnn {

// One tile: `rows` prepared rows times `blocks` blocks of weights, over `words` words of inputs. Adds to `sums`, or
// sets them where `first`. Block b's weights begin at weight + b * block_stride; sums of row r at sums + r * sums_stride.
template <class Prepared, class Sum>
struct Tile {
  const Prepared* prepared;
  int64_t rows;
  const uint32_t* weight;
  int64_t words;
  int64_t blocks;
  int64_t block_stride;
  Sum* sums;
  int64_t sums_stride;
  bool first;
};
using RealTile = Tile<float, float>;
using Int8Tile = Tile<int32_t, int32_t>;

// What follows a product, for one network; scale and shift are null where there is none.
struct Finish {
  const float* scale;
  const float* shift;
  int activation;
};

// `sums` of one row to `out`: floats, or packed signs; integer sums are counted in `unit`. Return a Status.
using FinishReal = int (*)(const float* sums, int64_t outputs, const Finish& finish, void* out);
using FinishInt8 = int (*)(const int32_t* sums, float unit, int64_t outputs, const Finish& finish, void* out);

struct RealKernel {
  int64_t rows;  // most rows of one tile
  int64_t (*size)(int64_t rows);
  // `rows` rows of `inputs` activations, `stride` apart; inputs beyond the last count as 0
  void (*prepare)(const float* values, int64_t stride, int64_t rows, int64_t inputs, float* prepared);
  void (*multiply)(const RealTile&);
  FinishReal finish;
};

struct Int8Kernel {
  int64_t rows;
  int64_t (*size)(int64_t rows);
  void (*prepare)(const int8_t* values, int64_t stride, int64_t rows, int64_t inputs, int32_t* prepared);
  void (*multiply)(const Int8Tile&);
  FinishInt8 finish;
};

namespace baseline {
extern const RealKernel REAL;
extern const Int8Kernel INT8;
}  // namespace baseline
namespace avx2 {
extern const RealKernel REAL;
extern const Int8Kernel INT8;
}  // namespace avx2
namespace avx512 {
extern const RealKernel REAL;
extern const Int8Kernel INT8;
}  // namespace avx512
namespace neon {
extern const RealKernel REAL;
extern const Int8Kernel INT8;
}  // namespace neon

// Those of the active level.
const RealKernel& real_kernel();
const Int8Kernel& int8_kernel();

}  // namespace varbnn
