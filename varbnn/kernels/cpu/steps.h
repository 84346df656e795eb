// One step of an optimizer in one pass over memory. The same source is compiled once for every instruction set.
#pragma once
#include <cmath>
#include <cstdint>

#include "level.h"

namespace varbnn {

enum Filter : int { IDENTITY = 0, AVERAGE = 1, HEAVY_BALL = 2, QUOTIENT = 3, CASCADE = 4 };
enum Pull : int {
  KEEP = 0, COUPLED = 1, AT_STEP = 2, COIN = 3, VARIANCE = 4, SETTLING = 5, PACED = 6,
  FAIR_COIN_NEAR = 7  // chosen in here
};
enum Decision : int { DESCEND = 0, BOX = 1, FLIP = 2, FLIP_LARQ = 3, WARY = 4, CONSOLIDATING = 5 };

// Mirrors `Settings` in varbnn/kernels/steps.py.
struct Settings {
  int filter, pull, decision;
  float gain;                 // what the gradient is multiplied by
  float strength, prior;      // of the pull; the prior where there is no tensor of them
  float rate, rate2, divisor; // of the averages; what the average is divided by
  float scale, eps;           // quotient: m / (sqrt(v) * scale + eps)
  float lr, low, high, threshold;
  float kept;                 // of the prior, where belief and prior approach each other
  float caution, least;       // paces: c sech^2(b) + 4 |d| sigmoid(± 2 b) + least, or sech^2(c |b|)
};

struct Tensors {
  float* belief;
  const float* gradient;
  float *first, *second;
  float* prior;  // null where the number holds
};

// Both work on entries `begin` to `end`. A pair is a location and its precision, which share their settings.
struct Steps {
  void (*one)(const Settings&, const Tensors&, int64_t begin, int64_t end);
  void (*pair)(const Settings&, const Tensors& location, const Tensors& precision, int64_t begin, int64_t end);
  bool (*finite)(const float* values, int64_t count);
};

namespace baseline { extern const Steps STEPS; }
namespace avx2 { extern const Steps STEPS; }
namespace avx512 { extern const Steps STEPS; }
namespace neon { extern const Steps STEPS; }

}  // namespace varbnn
