// 1-bit weights times float32 activations of few rows, by tables on the CUDA cores.
//
// Four inputs have 16 signed sums. A block of threads tabulates them for 1024 inputs, then every four weights cost one
// look-up (16 entries lie in 16 banks, so lanes never collide) and one addition.
#include "product.cuh"

constexpr int TABLE_WORDS = 32;

template <int ROWS>
INLINE void fill_tables(float* tables, const Product& p, const float* values, i64 row, int word) {
    for (int item = threadIdx.x; item < ROWS * TABLE_WORDS * 16; item += blockDim.x) {
        const int half = item & 1, nibble = item >> 1, m = nibble / (TABLE_WORDS * 8);
        const i64 k = 32ll * word + 4 * (nibble % (TABLE_WORDS * 8));
        float x[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
            x[i] = row + m < p.rows && k + i < p.inputs ? values[m * p.values_row + k + i] : 0.0f;
        const float low[4] = {-x[0] - x[1], x[0] - x[1], x[1] - x[0], x[0] + x[1]};
        const float last = half ? x[3] : -x[3], high[2] = {last - x[2], last + x[2]};
        FloatFour* to = reinterpret_cast<FloatFour*>(tables + nibble * 16 + half * 8);
        to[0] = FloatFour{low[0] + high[0], low[1] + high[0], low[2] + high[0], low[3] + high[0]};
        to[1] = FloatFour{low[0] + high[1], low[1] + high[1], low[2] + high[1], low[3] + high[1]};
    }
}

// 16 warps: `across` side by side over the outputs, 32 each, and 16 / across of them sharing the inputs.
template <int ROWS>
INLINE void by_table(const Product& p) {
    SHARED(float, shared);  // [ROWS][TABLE_WORDS][8][16], then [16 warps][ROWS][32]
    float* sums = shared + ROWS * TABLE_WORDS * 128;
    const int parts = 16 / p.across, part = warp_id() / p.across, side = warp_id() % p.across;
    const i64 tiles = Tile::count(p, 32 * p.across, ROWS);
    for (i64 index = blockIdx.x; index < tiles; index += gridDim.x) {
        const Tile tile(p, index, 32 * p.across, ROWS);
        const int output = tile.output + 32 * side, block = output / 16 + (lane_id() >> 4);
        const u32* weight = tile.weight(p) + (i64)block * p.words * 16 + (lane_id() & 15);
        const float* values = tile.values<float>(p) + tile.row * p.values_row;
        float even[ROWS] = {}, odd[ROWS] = {};
        for (int from = 0; from < p.words; from += TABLE_WORDS) {
            fill_tables<ROWS>(shared, p, values, tile.row, from);
            __syncthreads();
            const int stop = p.words - from < TABLE_WORDS ? p.words - from : TABLE_WORDS;
            if (block < p.blocks) {
#pragma unroll 4
                for (int j = part; j < stop; j += parts) {
                    const u32 w = weight[(i64)(from + j) * 16];
#pragma unroll
                    for (int m = 0; m < ROWS; ++m) {
                        const float* table = shared + (m * TABLE_WORDS + j) * 128;
#pragma unroll
                        for (int nibble = 0; nibble < 8; nibble += 2) {
                            even[m] += table[nibble * 16 + ((w >> (4 * nibble)) & 15)];
                            odd[m] += table[nibble * 16 + 16 + ((w >> (4 * nibble + 4)) & 15)];
                        }
                    }
                }
            }
            __syncthreads();
        }
#pragma unroll
        for (int m = 0; m < ROWS; ++m) sums[(warp_id() * ROWS + m) * 32 + lane_id()] = even[m] + odd[m];
        __syncthreads();
        if (part == 0) {
            const Finish finish(p, tile, output);
#pragma unroll
            for (int m = 0; m < ROWS; ++m) {
                float value = 0.0f;
                for (int other = 0; other < parts; ++other)
                    value += sums[((other * p.across + side) * ROWS + m) * 32 + lane_id()];
                finish.store(tile.row + m, value);
            }
        }
        __syncthreads();
    }
}

KERNEL(table_1, 512, 2, Product) { by_table<1>(p); }
KERNEL(table_2, 512, 1, Product) { by_table<2>(p); }
