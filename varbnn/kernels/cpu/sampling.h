// Signs drawn by counter, in tiles of 16 outputs x 128 inputs; see varbnn/kernels/philox.py for the definition.
#pragma once
#include "level.h"
#include "philox.h"

namespace varbnn {

constexpr int TILE = 128;         // inputs in a tile: what 16 counters give
constexpr int TILE_WORDS = TILE / WORD;

// One tile of a matrix of beliefs.
struct SignTile {
  const float* natural;  // of its first output and input
  int64_t stride;        // from one output to the next
  int rows, columns;     // outputs and inputs that exist: at most 16 and 128
  uint32_t first_row;    // number of the first output
  uint32_t first_group;  // number of the first counter: 16 times the number of the tile in its row
};

// The level's kernels. `blocks` are the words of sample `first`; those of the next sample lie `stride` words on. The
// sample is told by its words, TILE_WORDS lines of 16, or less where the tile ends. False: a belief is NaN.
#define VARBNN_SAMPLING(level)                                                                                    \
  namespace level {                                                                                               \
  bool sample_tile(const SignTile& tile, const Stream& stream, uint32_t first, int64_t count, uint32_t* blocks,       \
                   int64_t stride);                                                                               \
  void draw_tile(const SignTile& tile, const Stream& stream, uint32_t sample, float* signs);                          \
  }
VARBNN_SAMPLING(baseline)
VARBNN_SAMPLING(avx2)
VARBNN_SAMPLING(avx512)
VARBNN_SAMPLING(neon)
#undef VARBNN_SAMPLING

}  // namespace varbnn
