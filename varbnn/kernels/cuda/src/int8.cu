// Activations rounded to 8 bits by row, times 1-bit weights: dot = 2 sum(x where the weight is +1) - sum(x), exactly.
#include "product.cuh"

// Mirrored by varbnn.kernels.cuda.arguments.Quantise.
struct Quantise {
    const float* values;  // (rows, length)
    u8* bytes;            // (rows, words, 32), zero beyond the length
    float* units;         // (rows)
    int* sums;            // (rows)
    i64 rows;
    int length, words;
};

INLINE float largest_in_warp(float value) {
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) value = fmaxf(value, __shfl_xor_sync(ALL, value, mask));
    return value;
}

INLINE int sum_of_warp(int value) {
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) value += __shfl_xor_sync(ALL, value, mask);
    return value;
}

// A warp has a row. The same roundings as varbnn.kernels.products.quantise. Input t + 4 r + 8 h of a word of weights
// is stored as byte 8 t + 4 r + h: there lane t of a quad finds both of its operand registers together.
KERNEL(quantise, 256, 4, Quantise) {
    const int lane = lane_id();
    const int place = 8 * (lane & 3) + 4 * ((lane >> 2) & 1) + (lane >> 3);
    for (i64 row = (i64)blockIdx.x * 8 + warp_id(); row < p.rows; row += (i64)gridDim.x * 8) {
        const float* values = p.values + row * p.length;
        float largest = 0.0f;
        bool nan = false;
        for (int k = lane; k < p.length; k += 32) {
            nan |= values[k] != values[k];
            largest = fmaxf(largest, fabsf(values[k]));
        }
        nan = __ballot_sync(ALL, nan) != 0;
        largest = largest_in_warp(largest);
        const float unit = __fdiv_rn(largest, 127.0f), factor = __fdiv_rn(127.0f, largest);
        const bool usable = !nan && unit > 0.0f && unit <= 3.402823466e38f;
        int sum = 0;
        for (int word = 0; word < p.words; ++word) {
            const i64 k = 32ll * word + lane;
            int whole = 0;
            if (usable && k < p.length) {
                const float rounded = rintf(__fmul_rn(values[k], factor));
                whole = rounded != rounded ? 0 : (int)fminf(fmaxf(rounded, -127.0f), 127.0f);
            }
            sum += whole;
            p.bytes[(row * p.words + word) * 32 + place] = (u8)whole;
        }
        sum = sum_of_warp(sum);
        if (lane == 0) {
            p.sums[row] = sum;
            p.units[row] = usable || (!nan && unit == 0.0f) ? unit : __int_as_float(0x7FC00000);
        }
    }
}

// One warp: 64 outputs by 8 FRAGMENTS rows of words `first`, `first + step`, ...
template <int FRAGMENTS>
INLINE void warp_product(int (&c)[4][FRAGMENTS][4], const Product& p, const Tile& tile, int output, int first,
                         int step) {
    const int g = lane_id() >> 2, t = lane_id() & 3;
    const u32* weight = tile.weight(p) + 2 * g;
    const u8* values = tile.values<u8>(p) + 8 * t;
#pragma unroll
    for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int f = 0; f < FRAGMENTS; ++f) c[i][f][0] = c[i][f][1] = c[i][f][2] = c[i][f][3] = 0;
#pragma unroll 2
    for (int word = first; word < p.words; word += step) {
        Two b[FRAGMENTS];
#pragma unroll
        for (int f = 0; f < FRAGMENTS; ++f) {
            const i64 row = tile.row + 8 * f + g;
            b[f] = Two{0, 0};
            if (row < p.rows)
                b[f] = load_two(reinterpret_cast<const u32*>(values + row * p.values_row + 32ll * word));
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int block = output / 16 + i;
            Two two{0, 0};
            if (block < p.blocks) two = load_two(weight + ((i64)block * p.words + word) * 16);
            const u32 ones = 0x01010101u;
            const u32 a[4] = {(two.x >> t) & ones, (two.y >> t) & ones, (two.x >> (t + 4)) & ones,
                              (two.y >> (t + 4)) & ones};
#pragma unroll
            for (int f = 0; f < FRAGMENTS; ++f) mma_int8(c[i][f], a, b[f].x, b[f].y);
        }
    }
}

INLINE void store_row(const Product& p, const Tile& tile, const Finish& finish, i64 row, int sum) {
    if (row >= p.rows) return;
    const i64 at = (p.values_sample ? tile.sample * p.rows : 0) + row;
    const float unit = static_cast<const float*>(p.beside)[at];
    finish.store(row, __fmul_rn((float)(2 * sum - p.row_sums[at]), unit));
}

// Four warps side by side: 256 outputs by 32 rows.
KERNEL(int8_tile_32, 128, 3, Product) {
    SHARED(int, shared);  // [4 warps][STAGE]
    int* own = shared + warp_id() * STAGE;
    const i64 tiles = Tile::count(p, 256, 32);
    for (i64 index = blockIdx.x; index < tiles; index += gridDim.x) {
        const Tile tile(p, index, 256, 32);
        const int output = tile.output + 64 * warp_id();
        int c[4][4][4];
        warp_product<4>(c, p, tile, output, 0, 1);
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
            const Finish finish(p, tile, output + 32 * pair);
#pragma unroll
            for (int f = 0; f < 4; ++f) {
                stage(own, 0, c[2 * pair][f]);
                stage(own, 1, c[2 * pair + 1][f]);
                __syncwarp();
#pragma unroll 1
                for (int r = 0; r < 8; ++r)
                    store_row(p, tile, finish, tile.row + 8 * f + r, own[r * STAGE_ROW + lane_id()]);
                __syncwarp();
            }
        }
    }
}

// Four warps share 64 outputs by 8 rows: each has a quarter of the inputs.
KERNEL(int8_split_8, 128, 5, Product) {
    SHARED(int, shared);  // [4 warps][2 halves of the outputs][STAGE]
    const i64 tiles = Tile::count(p, 64, 8);
    for (i64 index = blockIdx.x; index < tiles; index += gridDim.x) {
        const Tile tile(p, index, 64, 8);
        int c[4][1][4];
        warp_product<1>(c, p, tile, tile.output, warp_id(), 4);
#pragma unroll
        for (int i = 0; i < 4; ++i) stage(shared + (2 * warp_id() + i / 2) * STAGE, i & 1, c[i][0]);
        __syncthreads();
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
            const Finish finish(p, tile, tile.output + 32 * pair);
#pragma unroll 1
            for (int r = warp_id(); r < 8; r += 4) {
                int sum = 0;
#pragma unroll
                for (int w = 0; w < 4; ++w) sum += shared[(2 * w + pair) * STAGE + r * STAGE_ROW + lane_id()];
                store_row(p, tile, finish, tile.row + r, sum);
            }
        }
        __syncthreads();
    }
}
