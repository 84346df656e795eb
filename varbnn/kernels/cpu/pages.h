// Memory for large results, which is new to the process and so costs a fault for every page that is first written.
#pragma once
#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace varbnn {

constexpr int64_t LARGE_RESULT = 4 << 20;  // bytes from which on huge pages are asked for; torch reuses smaller ones

// Ask for huge pages, where the system gives them on request: one fault where there were 512. A hint, nothing depends
// on it.
inline void expect_writes(void* result, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t PAGE = 4096;
  if (bytes < LARGE_RESULT) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(result) + PAGE - 1) / PAGE * PAGE;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(result) + uintptr_t(bytes)) / PAGE * PAGE;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)result, (void)bytes;
#endif
}

}  // namespace varbnn
