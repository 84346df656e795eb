// Steps of the optimizers: cuts the tensors into parts for the threads.
#include "steps.h"

#include "threads.h"

namespace varbnn {
namespace {

const Steps& steps() {
  switch (active_level()) {
#ifdef VARBNN_HAS_AVX2
    case AVX2: return avx2::STEPS;
#endif
#ifdef VARBNN_HAS_AVX512
    case AVX512: return avx512::STEPS;
#endif
#ifdef VARBNN_HAS_NEON
    case NEON: return neon::STEPS;
#endif
    default: return baseline::STEPS;
  }
}

}  // namespace
}  // namespace varbnn

VARBNN_API int varbnn_cpu_step(const varbnn::Settings* settings, const varbnn::Tensors* tensors, int64_t count,
                               int threads) {
  const varbnn::Steps& steps = varbnn::steps();
  return varbnn::in_parts(count, threads, [&](int64_t begin, int64_t end) -> int {
    steps.one(*settings, *tensors, begin, end);
    return varbnn::OK;
  });
}

VARBNN_API int varbnn_cpu_step_pair(const varbnn::Settings* settings, const varbnn::Tensors* location,
                                    const varbnn::Tensors* precision, int64_t count, int threads) {
  const varbnn::Steps& steps = varbnn::steps();
  return varbnn::in_parts(count, threads, [&](int64_t begin, int64_t end) -> int {
    steps.pair(*settings, *location, *precision, begin, end);
    return varbnn::OK;
  });
}

// 0 where every value is finite.
VARBNN_API int varbnn_cpu_finite(const float* values, int64_t count, int threads) {
  const varbnn::Steps& steps = varbnn::steps();
  return varbnn::in_parts(count, threads, [&](int64_t begin, int64_t end) -> int {
    return steps.finite(values + begin, end - begin) ? varbnn::OK : varbnn::FOUND_NAN;
  });
}
