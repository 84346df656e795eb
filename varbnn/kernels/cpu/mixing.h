// Coordinate descent on low-rank factors of max-cut-like semidefinite programs: the mixing method.
#pragma once
#include <cstdint>

#include "level.h"

namespace varbnn {

// minimise <G, W'W> + 2 sum_i b_i v_0.v_i over unit vectors v_1 … v_n of `rank` entries, v_0 = e_1. The diagonal of G
// does not matter; many programs may share it.
struct Mixing {
  const double* gram;
  const double* linear;
  int64_t count, rank;  // rank is a multiple of 8
  double momentum;
};

// One sweep over all vectors, in place. Writes |g_i| with g_i the gradient that vector i met, so that at rest the dual
// vector is G_ii - |g_i|, and returns their sum.
using Sweep = double (*)(const Mixing&, double* vectors, double* lengths);

namespace baseline { extern const Sweep SWEEP; }
namespace avx2 { extern const Sweep SWEEP; }
namespace avx512 { extern const Sweep SWEEP; }
namespace neon { extern const Sweep SWEEP; }

}  // namespace varbnn
