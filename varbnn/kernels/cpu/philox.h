// Philox4x32-10, one counter at a time: see varbnn/kernels/philox.py.
//
// Everything here is `static`: each level compiles its own copy with its own flags, and none may be merged with another.
#pragma once
#include <cstdint>

namespace varbnn {

constexpr uint32_t MULTIPLIER[2] = {0xD2511F53u, 0xCD9E8D57u};
constexpr uint32_t WEYL[2] = {0x9E3779B9u, 0xBB67AE85u};
constexpr int ROUNDS = 10;
constexpr uint32_t LOW_STREAM = 1u << 31;

// Which stream of random numbers: the two keys of each round, and the layer.
struct Stream {
  uint32_t key[2][ROUNDS];
  uint32_t layer;
};

static inline Stream make_stream(uint64_t seed, uint32_t layer) {
  Stream stream;
  stream.layer = layer;
  for (int half = 0; half < 2; ++half) {
    uint32_t key = static_cast<uint32_t>(seed >> (32 * half));
    for (int round = 0; round < ROUNDS; ++round, key += WEYL[half]) stream.key[half][round] = key;
  }
  return stream;
}

static inline uint64_t product(uint32_t word, uint32_t factor) { return static_cast<uint64_t>(word) * factor; }

static inline void philox(const Stream& stream, uint32_t c[4]) {
  for (int round = 0; round < ROUNDS; ++round) {
    const uint64_t p0 = product(c[0], MULTIPLIER[0]), p1 = product(c[2], MULTIPLIER[1]);
    const uint32_t next0 = static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ stream.key[0][round];
    const uint32_t next2 = static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ stream.key[1][round];
    c[0] = next0;
    c[1] = static_cast<uint32_t>(p1);
    c[2] = next2;
    c[3] = static_cast<uint32_t>(p0);
  }
}

}  // namespace varbnn
