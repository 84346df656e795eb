#include "level.h"

#include <initializer_list>

namespace varbnn {
namespace {

bool built(int level) {
  switch (level) {
    case BASELINE:
#ifdef VARBNN_HAS_AVX2
    case AVX2:
#endif
#ifdef VARBNN_HAS_AVX512
    case AVX512:
#endif
#ifdef VARBNN_HAS_NEON
    case NEON:
#endif
      return true;
    default:
      return false;
  }
}

bool supported(int level) {
  switch (level) {
    case BASELINE:
      return true;
#ifdef VARBNN_HAS_AVX2
    case AVX2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("popcnt");
#endif
#ifdef VARBNN_HAS_AVX512
    case AVX512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") &&
             __builtin_cpu_supports("avx512vpopcntdq");
#endif
#ifdef VARBNN_HAS_NEON
    case NEON:
      return true;
#endif
    default:
      return false;
  }
}

Level best() {
  for (int level : {int(NEON), int(AVX512), int(AVX2)})
    if (supported(level)) return static_cast<Level>(level);
  return BASELINE;
}

Level active = best();

}  // namespace

Level active_level() { return active; }

}  // namespace varbnn

VARBNN_API int varbnn_cpu_abi() { return varbnn::ABI; }

// What compiled this library, for `varbnn.backend_info()`.
VARBNN_API const char* varbnn_cpu_compiler() {
#ifdef __clang__
  return __VERSION__;
#else
  return "GCC " __VERSION__;
#endif
}

// 1 where work is split over threads.
VARBNN_API int varbnn_cpu_openmp() {
#ifdef _OPENMP
  return 1;
#else
  return 0;
#endif
}

// 1 where this build holds the level.
VARBNN_API int varbnn_cpu_built(int level) { return varbnn::built(level); }

// 1 where this build holds the level and this machine can run it.
VARBNN_API int varbnn_cpu_supports(int level) { return varbnn::supported(level); }

VARBNN_API int varbnn_cpu_level() { return varbnn::active; }

// Returns 0, or 1 and changes nothing where the level is not supported.
VARBNN_API int varbnn_cpu_use(int level) {
  if (!varbnn::supported(level)) return 1;
  varbnn::active = static_cast<varbnn::Level>(level);
  return 0;
}
