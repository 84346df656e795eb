#include "taps.h"

namespace varbnn {

const TapKernel& tap_kernel() {
  switch (active_level()) {
#ifdef VARBNN_HAS_AVX512
    case AVX512:
      return avx512::TAPS;
#endif
#ifdef VARBNN_HAS_AVX2
    case AVX2:
      return avx2::TAPS;
#endif
    default:
      return baseline::TAPS;  // also NEON, for which the compiler vectorises these loops
  }
}

}  // namespace varbnn
