// Which instruction set computes. Every function takes raw pointers to contiguous tensors and 64-bit sizes.
#pragma once
#include <cstdint>

#define VARBNN_API extern "C" __attribute__((visibility("default")))

namespace varbnn {

// Raised with every change of an exported function's arguments, and with every new one; `ABI` in native.py follows.
constexpr int ABI = 9;

enum Level : int { BASELINE = 0, AVX2 = 1, AVX512 = 2, NEON = 3 };

Level active_level();

// What an exported function returns.
enum Status : int { OK = 0, FOUND_NAN = 1, OUT_OF_MEMORY = 2 };

enum Activation : int { NONE = 0, RELU = 1, SIGN = 2 };

constexpr int BLOCK = 16;  // outputs in a block of packed weights
constexpr int WORD = 32;   // inputs in a word

// static: an inline function of another linkage could be taken from the file compiled for the newest processor
static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace varbnn
