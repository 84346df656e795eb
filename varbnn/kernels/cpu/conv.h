// Convolutions: their sizes, how their places are split into boxes, and what lies under a place.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "taps.h"

namespace varbnn {

// A convolution over three dimensions of space (z, y, x); fewer have size 1 in front. The fields are in the order of
// the numbers with which the library is called.
struct Conv {
  int64_t samples;        // networks
  int64_t input_samples;  // 1 where they share their input
  int64_t batch;
  int64_t channels;
  int64_t outputs;
  int64_t groups;
  int64_t in[3];
  int64_t out[3];
  int64_t kernel[3];
  int64_t stride[3];
  int64_t before[3];  // zeros in front of each dimension
  int64_t dilation[3];

  int64_t fan_in() const { return channels / groups; }
  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t words() const { return ceil_div(taps() * fan_in(), WORD); }  // of one output's weights
  int64_t group_outputs() const { return outputs / groups; }
  int64_t group_blocks() const { return ceil_div(group_outputs(), BLOCK); }
  int64_t pixels() const { return in[0] * in[1] * in[2]; }
  int64_t places() const { return out[0] * out[1] * out[2]; }

  // Where tap `tap` of output place `place` lies in dimension d; outside the input there are zeros.
  int64_t position(int d, int64_t place, int64_t tap) const {
    return place * stride[d] - before[d] + tap * dilation[d];
  }
  bool inside(int d, int64_t position) const { return 0 <= position && position < in[d]; }
};

// Output places of one image that are computed together, in rows.
struct Box {
  int64_t image;  // its number among input_samples · batch
  int64_t z;
  int64_t y, rows;
  int64_t x, columns;

  int64_t places() const { return rows * columns; }
};

// What lies under the places of a box, ready to be multiplied. One for each thread.
class Source {
 public:
  virtual ~Source() = default;
  virtual void enter(const Box& box) = 0;
  // The `count` places from `first` on, at most TapKernel::rows.
  virtual void gather(int64_t first, int count) = 0;
  // The gathered places times the weights of one group of channels.
  virtual void multiply(int64_t group, const Blocks& blocks, float* sums, int64_t stride) = 0;
};

// Activations are float, or words of signs where `packed`. Boxes have at most `largest.rows` and `.columns`.
std::unique_ptr<Source> make_source(const Conv& conv, const TapKernel& level, const void* values, bool packed,
                                    const Box& largest);

// Columns of a box for which prepared input stays in the second-level cache.
int64_t cached_columns(const Conv& conv, const TapKernel& level, bool packed);

}  // namespace varbnn
