// Products of packed weights with rows that lie in pieces: what every instruction set offers to convolutions and to the
// predictive layer.
//
// A row is a sequence of taps: pieces of whole words that lie anywhere in memory. A linear layer has one tap, a 3x3
// convolution nine, and neighbouring places share what lies under them.
#pragma once
#include <cstdint>

#include "products.h"

namespace varbnn {

// The taps of `rows` rows: tap t of row r starts at at[t * rows + r] and meets the words of a block from offset[t] on.
template <class T>
struct Taps {
  const T* const* at;
  const int64_t* offset;
  int64_t count;
  int64_t words;   // words of weights per tap
  int64_t unused;  // bits of a row's words that stand for no input (clear on both sides)
  int rows;
};

// Blocks of 16 outputs, `stride` words apart. The first word of a tap of all outputs of a block is one line.
struct Blocks {
  const uint32_t* words;
  int64_t count;
  int64_t stride;
};

constexpr int MOST_ROWS = 8;  // of one call, on any level

struct TapKernel {
  // Real activations are multiplied in a prepared form: so many floats stand for the 32 activations of a word.
  int64_t word_floats;
  int rows;  // most that one call takes, at most MOST_ROWS

  // The prepared form of `count` activations, filled up with zeros to whole words.
  void (*prepare)(const float* values, int64_t count, float* prepared);

  // sums[r * stride + output] = row r · weights, for all 16 outputs of every block.
  void (*multiply)(const Taps<float>& taps, const Blocks& blocks, float* sums, int64_t stride);

  // The same for packed signs. Tap t of row r counts where valid[t * rows + r] is -1; where it is 0 it is padding,
  // which adds nothing, and its words may be any that can be read.
  void (*multiply_signs)(const Taps<uint32_t>& taps, const int32_t* valid, const Blocks& blocks, float* sums,
                         int64_t stride);

  FinishReal finish;

  // Softmax of one row of logits: adds the probabilities to `mean` and returns their entropy in nats. NaN stays NaN.
  double (*softmax)(float* logits, int64_t outputs, double* mean);
};

namespace baseline {
extern const TapKernel TAPS;
}
namespace avx2 {
extern const TapKernel TAPS;
}
namespace avx512 {
extern const TapKernel TAPS;
}

// That of the active level.
const TapKernel& tap_kernel();

}  // namespace varbnn
