// Work split over threads, and buffers of their own.
#pragma once
#include <cstddef>
#include <cstdint>
#include <new>

namespace varbnn {

// Memory aligned to a line of 64 bytes; null where there is none. Freed with its owner.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count)
      : data_(static_cast<T*>(::operator new(size_t(count ? count : 1) * sizeof(T), LINE, std::nothrow))) {}
  ~Buffer() { ::operator delete(data_, LINE); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }

 private:
  static constexpr std::align_val_t LINE{64};
  T* data_;
};

// A second thread pays once each has about this many multiply-adds of packed weights to do (some 10 microseconds).
constexpr double WORTH_A_THREAD = 1e6;

// How many threads to use for `work` multiply-adds in `units` indivisible parts.
inline int64_t useful_threads(int threads, double work, int64_t units) {
  int64_t most = int64_t(work / WORTH_A_THREAD) + 1;
  if (most > units) most = units;
  if (most > threads) most = threads;
  return most < 1 ? 1 : most;
}

// body(first, last) over parts of 0 … units, one for each thread; returns the largest status.
template <class Body>
int over_threads(int64_t threads, int64_t units, Body body) {
  int worst = 0;
#pragma omp parallel for num_threads(int(threads)) schedule(static) reduction(max : worst) if (threads > 1)
  for (int64_t t = 0; t < threads; ++t) {
    const int status = body(units * t / threads, units * (t + 1) / threads);
    if (status > worst) worst = status;
  }
  return worst;
}

constexpr int64_t SHARE = 1 << 16;  // entries of a loop over all entries; a second thread pays from two parts on

// body(begin, end) over entries 0 … count, in whole parts; returns the largest status.
template <class Body>
int in_parts(int64_t count, int threads, Body body) {
  const int64_t parts = (count + SHARE - 1) / SHARE;
  return over_threads(threads < parts ? threads : parts ? parts : 1, parts, [&](int64_t first, int64_t last) -> int {
    const int64_t end = last * SHARE < count ? last * SHARE : count;
    return first < last ? body(first * SHARE, end) : 0;
  });
}

}  // namespace varbnn
