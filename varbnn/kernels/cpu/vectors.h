// Vectors of any width in the compiler's own notation.
#pragma once
#include <cstdint>
#include <cstring>

namespace varbnn {
namespace {

template <int BYTES>
struct Vectors {
  typedef float Floats __attribute__((vector_size(BYTES)));
  typedef int32_t Ints __attribute__((vector_size(BYTES)));
  typedef uint32_t Words __attribute__((vector_size(BYTES)));
  typedef uint16_t Halves __attribute__((vector_size(BYTES / 2)));
  static constexpr int LANES = BYTES / 4;
};

template <class Vector, class Number>
inline Vector load(const Number* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

template <class Vector, class Number>
inline void store(Number* to, Vector vector) {
  std::memcpy(to, &vector, sizeof vector);
}

}  // namespace
}  // namespace varbnn
