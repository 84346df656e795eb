// 1-bit weights times 1-bit activations, exactly:
//
//     dot = K - 2 pop(a) - 2 pop(w) + 4 pop(a AND w)          (tensor cores, AND only)
//     dot = K - 2 pop(a XOR w)                                (popcount unit)
//
// The masked forms count only the inputs whose bit is set in a second word v (taps inside the image of a convolution):
//
//     dot = pop(v) - 2 pop(a) - 2 pop(v AND w) + 4 pop(a AND w),    a set only where v is.
#include "product.cuh"

// Which of the 16 words of a step lane t of a quad holds as its e-th. Operands agree, so the order is free: the wide
// form lets a lane load its four activation words at once.
template <bool WIDE>
INLINE int slot(int e, int t) {
    return WIDE ? 4 * t + e : 4 * e + t;
}

template <bool WIDE>
INLINE void load_row(u32 (&to)[4], const u32* row, bool present, int word, int words) {
    const int t = lane_id() & 3;
    if (WIDE) {
        Four four{0, 0, 0, 0};
        if (present && word + 4 * t < words) four = load_four(row + word + 4 * t);
        to[0] = four.x, to[1] = four.y, to[2] = four.z, to[3] = four.w;
    } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) to[e] = present && word + 4 * e + t < words ? row[word + 4 * e + t] : 0;
    }
}

INLINE int popcount(const u32 (&words)[4]) {
    return __popc(words[0]) + __popc(words[1]) + __popc(words[2]) + __popc(words[3]);
}

// One warp: 32 outputs by 8 FRAGMENTS rows; `value` becomes 4 pop(a AND w) - 2 pop(v AND w), v all ones if not masked.
// Words `first`, `first + step`, ... in sixteens. `counts` of rows: -2 pop(a) (+ pop(v)) of the fragments f with
// f % sharers == share, in the lane that holds row g of the fragment.
template <int FRAGMENTS, bool WIDE, bool MASKED>
struct WarpProduct {
    int value[2][FRAGMENTS][4];
    int counts[FRAGMENTS];

    INLINE void run(const Product& p, const Tile& tile, int output, int first, int step, int share, int sharers) {
        const int g = lane_id() >> 2, t = lane_id() & 3;
        const u32* weight = tile.weight(p);
        const u32* values = tile.values<u32>(p);
        const u32* masks = static_cast<const u32*>(p.beside) + (values - static_cast<const u32*>(p.values));
        int inside[2][MASKED ? FRAGMENTS : 1][4] = {};
        int ones[2][2] = {};
#pragma unroll
        for (int f = 0; f < FRAGMENTS; ++f) {
            counts[f] = 0;
#pragma unroll
            for (int c = 0; c < 4; ++c) value[0][f][c] = value[1][f][c] = 0;
        }
        for (int word = first; word < p.words; word += step) {
            u32 a[2][2][4];  // block, half of the step, operand registers
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int block = output / 16 + i;
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const int line = word + slot<WIDE>(e, t);
                    Two two{0, 0};
                    if (line < p.words && block < p.blocks)
                        two = load_two(weight + ((i64)block * p.words + line) * 16 + 2 * g);
                    a[i][e >> 1][2 * (e & 1)] = two.x;
                    a[i][e >> 1][2 * (e & 1) + 1] = two.y;
                    if (!MASKED) ones[i][0] += __popc(two.x), ones[i][1] += __popc(two.y);
                }
            }
#pragma unroll
            for (int f = 0; f < FRAGMENTS; ++f) {
                const i64 row = tile.row + 8 * f + g;
                const bool present = row < p.rows;
                u32 b[4];
                load_row<WIDE>(b, values + row * p.values_row, present, word, p.words);
                if (f % sharers == share) counts[f] -= 2 * popcount(b);
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    mma_and_popc(value[i][f], a[i][0], b[0], b[1]);
                    mma_and_popc(value[i][f], a[i][1], b[2], b[3]);
                }
                if (MASKED) {
                    load_row<WIDE>(b, masks + row * p.values_row, present, word, p.words);
                    if (f % sharers == share) counts[f] += popcount(b);
#pragma unroll
                    for (int i = 0; i < 2; ++i) {
                        mma_and_popc(inside[i][MASKED ? f : 0], a[i][0], b[0], b[1]);
                        mma_and_popc(inside[i][MASKED ? f : 0], a[i][1], b[2], b[3]);
                    }
                }
            }
        }
#pragma unroll
        for (int f = 0; f < FRAGMENTS; ++f) counts[f] = sum_of_quad(counts[f]);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int low = MASKED ? 0 : sum_of_quad(ones[i][0]), high = MASKED ? 0 : sum_of_quad(ones[i][1]);
#pragma unroll
            for (int f = 0; f < FRAGMENTS; ++f)
#pragma unroll
                for (int c = 0; c < 4; ++c)
                    value[i][f][c] =
                        4 * value[i][f][c] - 2 * (MASKED ? inside[i][f][c] : c < 2 ? low : high);
        }
    }
};

// Four warps side by side, 128 outputs by 8 FRAGMENTS rows; each counts the rows of a quarter of the fragments.
template <int FRAGMENTS, bool WIDE, bool MASKED>
INLINE void tensor_side_by_side(const Product& p) {
    SHARED(int, shared);  // [8 FRAGMENTS] counts of rows, [4 warps][STAGE]
    int* own = shared + 8 * FRAGMENTS + warp_id() * STAGE;
    const int g = lane_id() >> 2, t = lane_id() & 3, base = MASKED ? 0 : p.inputs;
    const i64 tiles = Tile::count(p, 128, 8 * FRAGMENTS);
    for (i64 index = blockIdx.x; index < tiles; index += gridDim.x) {
        const Tile tile(p, index, 128, 8 * FRAGMENTS);
        const int output = tile.output + 32 * warp_id();
        WarpProduct<FRAGMENTS, WIDE, MASKED> product;
        product.run(p, tile, output, 0, 16, warp_id(), 4);
#pragma unroll
        for (int f = 0; f < FRAGMENTS; ++f)
            if (f % 4 == warp_id() && t == 0) shared[8 * f + g] = product.counts[f];
        __syncthreads();
        const Finish finish(p, tile, output);
#pragma unroll
        for (int f = 0; f < FRAGMENTS; ++f) {
            stage(own, 0, product.value[0][f]);
            stage(own, 1, product.value[1][f]);
            __syncwarp();
#pragma unroll 1  // the code of a store is long, and there are eight fragments
            for (int r = 0; r < 8; ++r)
                finish.store(tile.row + 8 * f + r,
                             (float)(base + own[r * STAGE_ROW + lane_id()] + shared[8 * f + r]));
            __syncwarp();
        }
        __syncthreads();
    }
}

// Four warps share 32 outputs by 8 FRAGMENTS rows: each has a quarter of the inputs. For few rows, where more warps
// must be in flight to keep the memory busy.
template <int FRAGMENTS, bool WIDE, bool MASKED>
INLINE void tensor_split(const Product& p) {
    SHARED(int, shared);  // [4 warps][8 FRAGMENTS] counts of rows, [4 warps][FRAGMENTS][STAGE]
    constexpr int ROWS = 8 * FRAGMENTS;
    int* stages = shared + 4 * ROWS;
    const int g = lane_id() >> 2, t = lane_id() & 3, base = MASKED ? 0 : p.inputs;
    const i64 tiles = Tile::count(p, 32, ROWS);
    for (i64 index = blockIdx.x; index < tiles; index += gridDim.x) {
        const Tile tile(p, index, 32, ROWS);
        WarpProduct<FRAGMENTS, WIDE, MASKED> product;
        product.run(p, tile, tile.output, 16 * warp_id(), 64, 0, 1);
#pragma unroll
        for (int f = 0; f < FRAGMENTS; ++f) {
            int* own = stages + (warp_id() * FRAGMENTS + f) * STAGE;
            stage(own, 0, product.value[0][f]);
            stage(own, 1, product.value[1][f]);
            if (t == 0) shared[warp_id() * ROWS + 8 * f + g] = product.counts[f];
        }
        __syncthreads();
        const Finish finish(p, tile, tile.output);
#pragma unroll 1
        for (int r = warp_id(); r < ROWS; r += 4) {
            int sum = base;
#pragma unroll
            for (int w = 0; w < 4; ++w)
                sum += shared[w * ROWS + r] + stages[w * FRAGMENTS * STAGE + r * STAGE_ROW + lane_id()];
            finish.store(tile.row + r, (float)sum);
        }
        __syncthreads();
    }
}

// Four warps share 32 outputs (one a lane) by ROWS rows, each with every fourth word.
template <int ROWS, bool MASKED>
INLINE void popcounts(const Product& p) {
    SHARED(int, shared);  // [4 warps][ROWS][32]
    const i64 tiles = Tile::count(p, 32, ROWS);
    for (i64 index = blockIdx.x; index < tiles; index += gridDim.x) {
        const Tile tile(p, index, 32, ROWS);
        const int block = tile.output / 16 + (lane_id() >> 4);
        const u32* weight = tile.weight(p) + (i64)block * p.words * 16 + (lane_id() & 15);
        const u32* values = tile.values<u32>(p) + tile.row * p.values_row;
        const u32* masks = static_cast<const u32*>(p.beside) + (values - static_cast<const u32*>(p.values));
        int sum[ROWS] = {};
#pragma unroll 4
        for (int word = warp_id(); word < p.words; word += 4) {
            const u32 w = block < p.blocks ? weight[(i64)word * 16] : 0;
#pragma unroll
            for (int m = 0; m < ROWS; ++m) {
                if (tile.row + m >= p.rows) continue;
                const u32 a = values[m * p.values_row + word];
                if (MASKED) {
                    const u32 v = masks[m * p.values_row + word];
                    sum[m] += __popc(v) - 2 * __popc((a ^ w) & v);
                } else {
                    sum[m] -= 2 * __popc(a ^ w);
                }
            }
        }
#pragma unroll
        for (int m = 0; m < ROWS; ++m) shared[(warp_id() * ROWS + m) * 32 + lane_id()] = sum[m];
        __syncthreads();
        const Finish finish(p, tile, tile.output);
#pragma unroll 1
        for (int m = warp_id(); m < ROWS; m += 4) {
            int value = MASKED ? 0 : p.inputs;
#pragma unroll
            for (int w = 0; w < 4; ++w) value += shared[(w * ROWS + m) * 32 + lane_id()];
            finish.store(tile.row + m, (float)value);
        }
        __syncthreads();
    }
}

KERNEL(bits_popcount_8, 128, 5, Product) { popcounts<8, false>(p); }
KERNEL(bits_popcount_1, 128, 8, Product) { popcounts<1, false>(p); }
KERNEL(bits_popcount_masked_8, 128, 3, Product) { popcounts<8, true>(p); }
#ifndef NO_BINARY_MMA  // chips without a binary tensor instruction would run a slow routine in its place
KERNEL(bits_split_8, 128, 6, Product) { tensor_split<1, false, false>(p); }
KERNEL(bits_split_8_wide, 128, 6, Product) { tensor_split<1, true, false>(p); }
KERNEL(bits_split_32, 128, 3, Product) { tensor_split<4, false, false>(p); }
KERNEL(bits_split_32_wide, 128, 3, Product) { tensor_split<4, true, false>(p); }
KERNEL(bits_tile_64, 128, 2, Product) { tensor_side_by_side<8, false, false>(p); }
KERNEL(bits_tile_64_wide, 128, 2, Product) { tensor_side_by_side<8, true, false>(p); }
KERNEL(bits_tile_masked_32, 128, 2, Product) { tensor_side_by_side<4, false, true>(p); }
KERNEL(bits_tile_masked_32_wide, 128, 2, Product) { tensor_side_by_side<4, true, true>(p); }
#endif
