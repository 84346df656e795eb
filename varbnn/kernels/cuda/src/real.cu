// 1-bit weights times float32 activations on the tensor cores, to float32 accuracy.
//
// A float32 is the exact sum of three bfloat16 (24 = 8 + 8 + 8 bits, cut off, not rounded), and ±1 is one: three
// products, accumulated in float32. Tensor cores cut off what falls below an accumulator, so the sum of the highest
// parts, which are nearly exact, is moved to an accumulator of its own after every 128 inputs.
#include "places.cuh"

struct Parts {
    u32 high, middle, low;  // each the upper 16 bits of a float32
};

INLINE Parts split(float x) {
    const u32 bits = __float_as_uint(x), magnitude = bits & 0x7FFFFFFFu;
    if (magnitude >= 0x7F800000u)  // inf and NaN have no remainder; a NaN must not be cut off to inf
        return Parts{magnitude == 0x7F800000u ? bits : bits | 0x00400000u, 0, 0};
    const float rest = x - __uint_as_float(bits & 0xFFFF0000u);
    const u32 middle = __float_as_uint(rest);
    return Parts{bits, middle, __float_as_uint(rest - __uint_as_float(middle & 0xFFFF0000u))};
}

INLINE u32 upper_halves(u32 low, u32 high) { return __byte_perm(low, high, 0x7632); }

constexpr int MOVE = 4;  // words of inputs between moves of the highest parts

// Eight warps: ACROSS side by side over the outputs (64 each), DOWN over the rows (16 each), SHARING the inputs.
template <class Source, int ACROSS, int DOWN, int SHARING>
struct Split {
    typedef typename Source::Arguments Arguments;
    typedef typename Source::Row Row;
    static constexpr int OUTPUTS = 64 * ACROSS, ROWS = 16 * DOWN, ITEMS = DOWN * SHARING;
    static constexpr int PART = SHARING * ROWS * 16, BUFFER = 3 * PART;  // words: [part][word of inputs][row][pair]

    // The activations that this thread brings: inputs `pair` and `pair + 16` of a word, rows 16 apart.
    INLINE static void bring(float (&raw)[ITEMS][2], const Row* rows, const Arguments& p, const Tile& tile, int word) {
        const int pair = threadIdx.x & 15;
#pragma unroll
        for (int s = 0; s < SHARING; ++s) {
            const int k = 32 * (word + s) + pair;
            const typename Source::Input low(p, k), high(p, k + 16);
#pragma unroll
            for (int d = 0; d < DOWN; ++d) {
                const Source source(rows, 16 * d + (threadIdx.x >> 4), p, tile);
                raw[s * DOWN + d][0] = source.at(p, low);
                raw[s * DOWN + d][1] = source.at(p, high);
            }
        }
    }
    // Stored so that lane t of a quad finds its pairs t, t + 4, t + 8, t + 12 in 16 bytes.
    INLINE static void keep(u32* buffer, const float (&raw)[ITEMS][2]) {
        const int pair = threadIdx.x & 15, place = 4 * (pair & 3) + (pair >> 2);
#pragma unroll
        for (int s = 0; s < SHARING; ++s)
#pragma unroll
            for (int d = 0; d < DOWN; ++d) {
                const Parts low = split(raw[s * DOWN + d][0]), high = split(raw[s * DOWN + d][1]);
                u32* to = buffer + (s * ROWS + 16 * d + (threadIdx.x >> 4)) * 16 + place;
                to[0] = upper_halves(low.high, high.high);
                to[PART] = upper_halves(low.middle, high.middle);
                to[2 * PART] = upper_halves(low.low, high.low);
            }
    }

    float total[4][2][4], top[4][2][4], rest[4][2][4];

    INLINE void clear() {
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int f = 0; f < 2; ++f)
#pragma unroll
                for (int c = 0; c < 4; ++c) total[i][f][c] = top[i][f][c] = rest[i][f][c] = 0.0f;
    }
    INLINE void move() {
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int f = 0; f < 2; ++f)
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    total[i][f][c] += top[i][f][c];
                    top[i][f][c] = 0.0f;
                }
    }
    // ±1 as bfloat16, in the pairs (bit q, bit q + 16), q = t + 4 e for e = 0..3: a shift and a logical operation each.
    INLINE static u32 unpacked(u32 shifted, int e) { return ((shifted << (12 - 4 * e)) & 0x80008000u) ^ 0xBF80BF80u; }

    // The inputs of one word: two steps of 16.
    INLINE void multiply(const Two (&weight)[4], const u32* buffer) {
        const int g = lane_id() >> 2, t = lane_id() & 3;
        const int down = warp_id() / ACROSS % DOWN, sharer = warp_id() / (ACROSS * DOWN);
        const u32* rows = buffer + (sharer * ROWS + 16 * down + g) * 16 + 4 * t;
        u32 a[4][2][4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const u32 x = weight[i].x << (3 - t), y = weight[i].y << (3 - t);
#pragma unroll
            for (int step = 0; step < 2; ++step) {
                a[i][step][0] = unpacked(x, 2 * step);
                a[i][step][1] = unpacked(y, 2 * step);
                a[i][step][2] = unpacked(x, 2 * step + 1);
                a[i][step][3] = unpacked(y, 2 * step + 1);
            }
        }
#pragma unroll
        for (int part = 2; part >= 0; --part)
#pragma unroll
            for (int f = 0; f < 2; ++f) {
                const Four b = load_four(rows + part * PART + f * 8 * 16);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    float(&to)[4] = part ? rest[i][f] : top[i][f];
                    mma_bf16(to, a[i][0], b.x, b.y);
                    mma_bf16(to, a[i][1], b.z, b.w);
                }
            }
    }

    INLINE static void load_weight(Two (&to)[4], const Product& p, const u32* weight, int block, int word) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            to[i] = Two{0, 0};
            if (block + i < p.blocks && word < p.words)
                to[i] = load_two(weight + ((i64)(block + i) * p.words + word) * 16 + 2 * (lane_id() >> 2));
        }
    }

    INLINE void accumulate(const Arguments& arguments, const Tile& tile, u32* buffers) {
        const Product& p = Source::product(arguments);
        const int sharer = warp_id() / (ACROSS * DOWN), block = tile.output / 16 + 4 * (warp_id() % ACROSS);
        const u32* weight = tile.weight(p);
        Row* rows = reinterpret_cast<Row*>(buffers + 2 * BUFFER);
        Source::prepare(rows, ROWS, arguments, tile);
        float raw[ITEMS][2];
        Two now[4], next[4];
        bring(raw, rows, arguments, tile, 0);
        load_weight(now, p, weight, block, sharer);
        keep(buffers, raw);
        __syncthreads();
        clear();
        int buffer = 0, moves = 0;
        for (int word = 0; word < p.words; word += SHARING) {
            const bool more = word + SHARING < p.words;
            if (more) {
                bring(raw, rows, arguments, tile, word + SHARING);
                load_weight(next, p, weight, block, word + SHARING + sharer);
            }
            multiply(now, buffers + buffer * BUFFER);
            if (++moves == MOVE) moves = 0, move();
            if (more) {
                keep(buffers + (buffer ^ 1) * BUFFER, raw);
#pragma unroll
                for (int i = 0; i < 4; ++i) now[i] = next[i];
            }
            __syncthreads();
            buffer ^= 1;
        }
        move();
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int f = 0; f < 2; ++f)
#pragma unroll
                for (int c = 0; c < 4; ++c) total[i][f][c] += rest[i][f][c];
    }

    // Two fragments of 8 rows, two halves of 32 outputs; the sharers of the inputs are added in their order.
    INLINE void finish(const Arguments& arguments, const Tile& tile, float* stages) {
        const Product& p = Source::product(arguments);
        const int side = warp_id() % ACROSS, down = warp_id() / ACROSS % DOWN, sharer = warp_id() / (ACROSS * DOWN);
#pragma unroll
        for (int f = 0; f < 2; ++f)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float* own = stages + warp_id() * STAGE;
                stage(own, 0, total[2 * half][f]);
                stage(own, 1, total[2 * half + 1][f]);
                __syncthreads();
                const Finish finish(p, tile, tile.output + 64 * side + 32 * half);
#pragma unroll 1
                for (int r = sharer; r < 8; r += SHARING) {
                    float value = 0.0f;
#pragma unroll
                    for (int s = 0; s < SHARING; ++s)
                        value += stages[((s * DOWN + down) * ACROSS + side) * STAGE + r * STAGE_ROW + lane_id()];
                    finish.store(tile.row + 16 * down + 8 * f + r, value);
                }
                __syncthreads();
            }
    }

    INLINE static void run(const Arguments& arguments) {
        SHARED(u32, shared);  // two buffers and the rows of a convolution; then stages of the eight warps
        const Product& p = Source::product(arguments);
        const i64 tiles = Tile::count(p, OUTPUTS, ROWS);
        for (i64 index = blockIdx.x; index < tiles; index += gridDim.x) {
            const Tile tile(p, index, OUTPUTS, ROWS);
            Split work;
            work.accumulate(arguments, tile, shared);
            work.finish(arguments, tile, reinterpret_cast<float*>(shared));
        }
    }
};

KERNEL(real_split_narrow, 256, 1, Product) { Split<Flat, 1, 1, 8>::run(p); }
KERNEL(real_split_16, 256, 1, Product) { Split<Flat, 4, 1, 2>::run(p); }
KERNEL(real_split_64, 256, 1, Product) { Split<Flat, 2, 4, 1>::run(p); }
KERNEL(real_conv_64, 256, 1, Convolution) { Split<Patch, 2, 4, 1>::run(p); }
KERNEL(real_conv_128, 256, 1, Convolution) { Split<Patch, 1, 8, 1>::run(p); }
