// Vectors of four numbers, by the extension that GCC and clang share; they know how to compile them for any machine.
#pragma once
#include <cstdint>
#include <cstring>

namespace varbnn {
namespace baseline {
namespace {

constexpr int LANES = 4;
typedef float Floats __attribute__((vector_size(16)));
typedef uint32_t Bits __attribute__((vector_size(16)));
typedef int32_t Whole __attribute__((vector_size(16)));

template <class Vector, class Number>
inline Vector load(const Number* from) {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class Vector, class Number>
inline void store(Number* to, Vector v) {
  std::memcpy(to, &v, sizeof v);
}

}  // namespace
}  // namespace baseline
}  // namespace varbnn
