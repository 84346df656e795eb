// What the products share: their arguments, which tile a block of threads has, and what follows the sum.
#pragma once
#include "device.cuh"

enum Activation { NONE = 0, RELU = 1, SIGN = 2 };

// Mirrored by varbnn.kernels.cuda.arguments.Product, field by field.
struct Product {
    const void* values;    // activations: float, words of signs, or bytes
    const void* beside;    // bits: which inputs count (masked kernels); int8: units of the rows
    const int* row_sums;   // int8: sum of each row of bytes
    const u32* weight;     // (samples, groups * blocks, words, 16)
    const float* scale;    // null, or per output
    const float* shift;
    void* out;             // (samples, rows, outputs), or words for SIGN
    i64 rows;
    i64 values_sample;     // elements between the activations of two networks; 0 where they share them
    i64 values_row;
    i64 values_group;
    i64 scale_sample;
    i64 shift_sample;
    int samples, groups;
    int inputs, words;     // of one output
    int outputs, blocks;   // of one group
    int activation;
    int across;            // table kernel: warps side by side over the outputs
};

// The tile with number `index` of samples x groups x (tiles of outputs) x (tiles of rows), rows running fastest.
struct Tile {
    int sample, group, output;
    i64 row;

    INLINE static i64 count(const Product& p, int outputs, int rows) {
        return (i64)p.samples * p.groups * ((p.outputs + outputs - 1) / outputs) * ((p.rows + rows - 1) / rows);
    }
    INLINE Tile(const Product& p, i64 index, int outputs, int rows) {
        const i64 down = (p.rows + rows - 1) / rows;
        row = index % down * rows;
        u32 rest = (u32)(index / down);
        const u32 across = (p.outputs + outputs - 1) / outputs;
        output = (int)(rest % across) * outputs;
        rest /= across;
        group = (int)(rest % p.groups);
        sample = (int)(rest / p.groups);
    }
    INLINE const u32* weight(const Product& p) const {
        return p.weight + ((i64)sample * p.groups + group) * p.blocks * p.words * 16;
    }
    template <typename T>
    INLINE const T* values(const Product& p) const {
        return static_cast<const T*>(p.values) + sample * p.values_sample + group * p.values_group;
    }
};

// Scale, shift, activation and store of one output per lane, 32 outputs of one row per call.
struct Finish {
    const Product& p;
    i64 first, channel, width;  // of this lane's network: rows before it; this lane's output; outputs of all groups
    float scale, shift;
    bool present;

    INLINE Finish(const Product& product, const Tile& tile, int output) : p(product) {
        const int n = output + lane_id();
        present = n < p.outputs;
        width = (i64)p.outputs * p.groups;
        channel = (i64)tile.group * p.outputs + n;
        first = tile.sample * p.rows;
        scale = present && p.scale ? p.scale[tile.sample * p.scale_sample + channel] : 1.0f;
        shift = present && p.shift ? p.shift[tile.sample * p.shift_sample + channel] : 0.0f;
    }
    INLINE void store(i64 row, float value) const {
        if (row >= p.rows) return;  // the same for the whole warp
        if (p.scale) value = __fmul_rn(value, scale);
        if (p.shift) value = __fadd_rn(value, shift);
        if (p.activation == SIGN) {
            const u32 word = __ballot_sync(ALL, present && value >= 0.0f);
            if (lane_id() == 0 && present)
                static_cast<u32*>(p.out)[(first + row) * ((width + 31) / 32) + channel / 32] = word;
        } else if (present) {
            if (p.activation == RELU && value < 0.0f) value = 0.0f;  // NaN stays NaN
            static_cast<float*>(p.out)[(first + row) * width + channel] = value;
        }
    }
};

// A 16 x 8 accumulator holds outputs (row of the operand) by batch rows (column). Weights are loaded in pairs, so row
// `g` of the operand is output 2 g of the block and row `g + 8` is output 2 g + 1. Staged as [8 batch rows][36]:
// 32 outputs and 4 words that keep the writes of a half-warp in different banks.
constexpr int STAGE_ROW = 36;
constexpr int STAGE = 8 * STAGE_ROW;

template <typename T>
INLINE void stage(T* to, int block, const T (&c)[4]) {
    const int g = lane_id() >> 2, t = lane_id() & 3;
    T* even = to + 2 * t * STAGE_ROW + 16 * block + 2 * g;
    even[0] = c[0];
    even[1] = c[2];
    even[STAGE_ROW] = c[1];
    even[STAGE_ROW + 1] = c[3];
}
