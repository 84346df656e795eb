// 8-bit activations, NEON: the 16 possible sums of four activations are bytes' work for the table look-up. Sums of
// 16 bits are looked up as low and high bytes, for 16 outputs at once.
#include <arm_neon.h>

#include "../finish.h"

namespace varbnn {
namespace neon {
namespace {

constexpr int64_t ROWS = 2;
constexpr int TABLES = 8;                 // of a word, each of four inputs
constexpr int TABLE = 8;                  // numbers of 32 bits in a table: 16 low bytes, 16 high bytes
constexpr int64_t WORDS_AT_ONCE = 8;      // 64 sums of at most 4 * 127 stay below 2^15

// Table q of word j of row r at ((j * TABLES + q) * rows + r) * 8 numbers of 32 bits.
void prepare(const int8_t* values, int64_t stride, int64_t rows, int64_t inputs, int32_t* prepared) {
  for (int64_t j = 0; j * WORD < inputs; ++j)
    for (int q = 0; q < TABLES; ++q)
      for (int64_t r = 0; r < rows; ++r) {
        int x[4];
        for (int i = 0; i < 4; ++i) {
          const int64_t k = j * WORD + 4 * q + i;
          x[i] = k < inputs ? values[r * stride + k] : 0;
        }
        uint8_t bytes[2][16];
        for (int entry = 0; entry < 16; ++entry) {
          int sum = 0;
          for (int i = 0; i < 4; ++i) sum += entry >> i & 1 ? x[i] : -x[i];
          bytes[0][entry] = uint8_t(sum);
          bytes[1][entry] = uint8_t(sum >> 8);
        }
        std::memcpy(prepared + ((j * TABLES + q) * rows + r) * TABLE, bytes, sizeof bytes);
      }
}

// 16 totals of 16 bits into sums of 32.
inline void add_to(int32_t* sums, const int16x8_t total[2], bool fresh) {
  for (int half = 0; half < 2; ++half) {
    int32x4_t low = vmovl_s16(vget_low_s16(total[half])), high = vmovl_s16(vget_high_s16(total[half]));
    int32_t* to = sums + 8 * half;
    if (!fresh) low = vaddq_s32(low, vld1q_s32(to)), high = vaddq_s32(high, vld1q_s32(to + 4));
    vst1q_s32(to, low);
    vst1q_s32(to + 4, high);
  }
}

// R rows times one block over words `start` to `end`, at most WORDS_AT_ONCE.
template <int R>
inline void tile(const Int8Tile& t, int64_t block, int64_t start, int64_t end) {
  const uint8x16_t nibble = vdupq_n_u8(15);
  const uint8_t* weight = reinterpret_cast<const uint8_t*>(t.weight + block * t.block_stride + start * BLOCK);
  const uint8_t* prepared = reinterpret_cast<const uint8_t*>(t.prepared + start * TABLES * R * TABLE);
  int16x8_t total[R][2];
  for (int r = 0; r < R; ++r) total[r][0] = total[r][1] = vdupq_n_s16(0);
  for (int64_t j = start; j < end; ++j, weight += 4 * BLOCK, prepared += 4 * TABLES * R * TABLE) {
    const uint8x16x4_t bytes = vld4q_u8(weight);  // byte n of all 16 words in register n
    for (int q = 0; q < TABLES; ++q) {
      const uint8x16_t byte = bytes.val[q / 2];
      const uint8x16_t index = q % 2 ? vshrq_n_u8(byte, 4) : vandq_u8(byte, nibble);
      for (int r = 0; r < R; ++r) {
        const uint8_t* table = prepared + (q * R + r) * 4 * TABLE;
        const uint8x16_t low = vqtbl1q_u8(vld1q_u8(table), index), high = vqtbl1q_u8(vld1q_u8(table + 16), index);
        total[r][0] = vaddq_s16(total[r][0], vreinterpretq_s16_u8(vzip1q_u8(low, high)));
        total[r][1] = vaddq_s16(total[r][1], vreinterpretq_s16_u8(vzip2q_u8(low, high)));
      }
    }
  }
  for (int r = 0; r < R; ++r)
    add_to(t.sums + block * BLOCK + r * t.sums_stride, total[r], t.first && start == 0);
}

template <int R>
void rows_of(const Int8Tile& t) {
  for (int64_t block = 0; block < t.blocks; ++block)
    for (int64_t start = 0; start < t.words; start += WORDS_AT_ONCE)
      tile<R>(t, block, start, start + WORDS_AT_ONCE < t.words ? start + WORDS_AT_ONCE : t.words);
}

void multiply(const Int8Tile& t) {
  if (t.rows == 1) return rows_of<1>(t);
  rows_of<2>(t);
}

int64_t size(int64_t rows) { return rows * TABLES * TABLE; }

}  // namespace

extern const Int8Kernel INT8 = {ROWS, size, prepare, multiply, finish_int8};

}  // namespace neon
}  // namespace varbnn
