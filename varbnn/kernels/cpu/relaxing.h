// Relaxed draws of coins: tanh((natural + noise) / relaxation) and what a gradient there is multiplied by; see
// varbnn/kernels/philox.py for the noise.
#pragma once
#include "level.h"
#include "philox.h"

namespace varbnn {

constexpr int RELAXED_GROUP = 256;  // weights whose noise is made together: 64 counters of four words

struct Relaxing {
  const float* natural;
  float relaxation;
  bool euclidean;  // a gradient in natural itself, instead of one in its tanh
  float *weight, *factor;
};

// Entries `begin` to `end`; `begin` is the first of a group.
using Relax = void (*)(const Relaxing&, const Stream&, int64_t begin, int64_t end);

namespace baseline { extern const Relax RELAX; }
namespace avx2 { extern const Relax RELAX; }
namespace avx512 { extern const Relax RELAX; }
namespace neon { extern const Relax RELAX; }

}  // namespace varbnn
