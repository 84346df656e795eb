// Relaxed draws: cuts the tensor into parts for the threads.
#include "relaxing.h"

#include "pages.h"
#include "threads.h"

namespace varbnn {
namespace {

static_assert(SHARE % RELAXED_GROUP == 0, "a part begins with a group");

Relax relax_of_level() {
  switch (active_level()) {
#ifdef VARBNN_HAS_AVX2
    case AVX2: return avx2::RELAX;
#endif
#ifdef VARBNN_HAS_AVX512
    case AVX512: return avx512::RELAX;
#endif
#ifdef VARBNN_HAS_NEON
    case NEON: return neon::RELAX;
#endif
    default: return baseline::RELAX;
  }
}

}  // namespace
}  // namespace varbnn

// weight, factor: float32, `count` entries each; NaN where the belief is.
VARBNN_API int varbnn_cpu_relax(const float* natural, int64_t count, int64_t seed, double relaxation, int euclidean,
                                float* weight, float* factor, int threads) {
  using namespace varbnn;
  const Relaxing given{natural, float(relaxation), euclidean != 0, weight, factor};
  const Stream stream = make_stream(uint64_t(seed), 0);
  const Relax relax = relax_of_level();
  expect_writes(weight, 4 * count);
  expect_writes(factor, 4 * count);
  return in_parts(count, threads, [&](int64_t begin, int64_t end) -> int {
    relax(given, stream, begin, end);
    return OK;
  });
}
