// The mixing method for many programs that share one matrix, each with a start and a linear part of its own.
#include "mixing.h"

#include "threads.h"

namespace varbnn {
namespace {

Sweep sweep_of_level() {
  switch (active_level()) {
#ifdef VARBNN_HAS_AVX2
    case AVX2: return avx2::SWEEP;
#endif
#ifdef VARBNN_HAS_AVX512
    case AVX512: return avx512::SWEEP;
#endif
#ifdef VARBNN_HAS_NEON
    case NEON: return neon::SWEEP;
#endif
    default: return baseline::SWEEP;
  }
}

}  // namespace
}  // namespace varbnn

// Runs `sweeps` sweeps of each of `programs` programs; `linear` is (programs, count), `vectors` (programs, count, rank),
// `lengths` (programs, count). A program stops early once the sum of its lengths changes by less than `tolerance` of
// itself in a sweep.
VARBNN_API int varbnn_cpu_mixing(const double* gram, const double* linear, int64_t programs, int64_t count, int64_t rank,
                                 int64_t sweeps, double momentum, double tolerance, double* vectors, double* lengths,
                                 int threads) {
  using namespace varbnn;
  const Sweep sweep = sweep_of_level();
  const double work = double(programs) * double(count) * double(count) * double(rank) * double(sweeps);
  return over_threads(useful_threads(threads, work, programs), programs, [&](int64_t first, int64_t last) -> int {
    for (int64_t p = first; p < last; ++p) {
      const Mixing program{gram, linear + p * count, count, rank, momentum};
      double before = 0.0;
      for (int64_t s = 0; s < sweeps; ++s) {
        const double total = sweep(program, vectors + p * count * rank, lengths + p * count);
        const double change = total > before ? total - before : before - total;
        if (s > 0 && change <= tolerance * total) break;
        before = total;
      }
    }
    return OK;
  });
}
