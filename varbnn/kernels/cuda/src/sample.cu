// Beliefs to random signs: the same bits as varbnn/kernels/philox.py, which defines them.
#include "device.cuh"

// Mirrored by varbnn.kernels.cuda.arguments.Sampling.
struct Sampling {
    const float* natural;  // (outputs, inputs)
    const i64* seed;
    void* out;             // blocks, or floats (outputs, inputs)
    int outputs, inputs;
    int samples, chunk;    // how many samples; how many of them one block of threads draws
    u32 layer, first;
};

constexpr u32 NEVER = ALL;            // threshold of a weight that is -1 for sure
constexpr u32 LOW_STREAM = 1u << 31;  // the lower halves come from the layer with its top bit set
constexpr int BATCH = 8;              // samples drawn between two barriers

// P(-1) 2^32, rounded to an even number. Every step is one float32 operation, rounded to nearest even.
INLINE u32 threshold(float natural) {
    const float x = fmaxf(__fmul_rn(fabsf(natural), -2.0f), -24.0f);
    const float k = rintf(__fmul_rn(x, 1.44269504f));
    const float r = __fsub_rn(__fsub_rn(x, __fmul_rn(k, 0.693359375f)), __fmul_rn(k, -2.12194440e-4f));
    float p = 1.9875691500e-4f;
    p = __fadd_rn(__fmul_rn(p, r), 1.3981999507e-3f);
    p = __fadd_rn(__fmul_rn(p, r), 8.3334519073e-3f);
    p = __fadd_rn(__fmul_rn(p, r), 4.1665795894e-2f);
    p = __fadd_rn(__fmul_rn(p, r), 1.6666665459e-1f);
    p = __fadd_rn(__fmul_rn(p, r), 5.0000001201e-1f);
    const float power = __int_as_float((__float2int_rn(k) + 127) << 23);
    const float e = __fmul_rn(__fadd_rn(__fadd_rn(__fmul_rn(p, __fmul_rn(r, r)), r), 1.0f), power);
    const u32 smaller = 2u * __float2uint_rn(__fmul_rn(__fdiv_rn(e, __fadd_rn(e, 1.0f)), 2147483648.0f));
    if (!(natural < 0.0f)) return smaller;
    return smaller == 0 ? NEVER : 0u - smaller;
}

INLINE Four philox(u32 c0, u32 c1, u32 c2, u32 c3, u32 k0, u32 k1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u32 high0 = __umulhi(c0, 0xD2511F53u), low0 = c0 * 0xD2511F53u;
        const u32 high1 = __umulhi(c2, 0xCD9E8D57u), low1 = c2 * 0xCD9E8D57u;
        c0 = high1 ^ c1 ^ k0;
        c1 = low1;
        c2 = high0 ^ c3 ^ k1;
        c3 = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return Four{c0, c1, c2, c3};
}

INLINE u32 word_of(const Four& four, int w) { return w == 0 ? four.x : w == 1 ? four.y : w == 2 ? four.z : four.w; }

// The eight weights of one counter: words w = 0..3, halves h = 0, 1.
struct Eight {
    u32 bound[8];

    INLINE Eight(const Sampling& p, int output, int group, int l) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const i64 k = 128ll * group + 32 * (i >> 1) + 2 * l + (i & 1);
            bound[i] = output < p.outputs && k < p.inputs ? threshold(p.natural[(i64)output * p.inputs + k]) : NEVER;
        }
    }
    // Bit i is set where weight i is +1.
    INLINE u32 draw(u32 counter, u32 output, u32 sample, u32 layer, u32 k0, u32 k1) const {
        const Four upper = philox(counter, output, sample, layer, k0, k1);
        u32 plus = 0, ties = 0;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const u32 half = (word_of(upper, i >> 1) >> (16 * (i & 1))) & 0xFFFFu, top = bound[i] >> 16;
            plus |= (u32)(half > top) << i;
            ties |= (u32)(half == top) << i;
        }
        if (ties) {  // once in 8192 counters
            const Four lower = philox(counter, output, sample, layer | LOW_STREAM, k0, k1);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const u32 half = (word_of(lower, i >> 1) >> (16 * (i & 1))) & 0xFFFFu;
                if (half >= (bound[i] & 0xFFFFu) && bound[i] != NEVER) plus |= (ties & (1u << i));
            }
        }
        return plus;
    }
};

// Bit i of the lower 16 goes to bit 2 i.
INLINE u32 spread(u32 bits) {
    bits = (bits | (bits << 8)) & 0x00FF00FFu;
    bits = (bits | (bits << 4)) & 0x0F0F0F0Fu;
    bits = (bits | (bits << 2)) & 0x33333333u;
    return (bits | (bits << 1)) & 0x55555555u;
}

// 256 threads have the 16 outputs of one block and 128 inputs, that is 4 lines of 16 words; a half-warp has one output,
// a lane the eight weights of one counter. Thresholds are computed once for all the samples of the chunk.
KERNEL(sample_blocks, 256, 3, Sampling) {
    SHARED(u32, drawn);  // [BATCH][4 words][16 outputs]
    const int lane = lane_id(), l = lane & 15, output_in_block = threadIdx.x >> 4;
    const int groups = (p.inputs + 127) / 128, blocks = (p.outputs + 15) / 16, words = (p.inputs + 31) / 32;
    const int chunks = (p.samples + p.chunk - 1) / p.chunk;
    const u32 k0 = (u32)*p.seed, k1 = (u32)((u64)*p.seed >> 32);
    const i64 tiles = (i64)groups * blocks * chunks;
    for (i64 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int group = (int)(tile % groups), block = (int)(tile / groups % blocks);
        const int start = (int)(tile / groups / blocks) * p.chunk;
        const int stop = p.samples - start < p.chunk ? p.samples : start + p.chunk;
        const int output = 16 * block + output_in_block;
        const Eight weights(p, output, group, l);
        for (int from = start; from < stop; from += BATCH) {
            const int size = stop - from < BATCH ? stop - from : BATCH;
            for (int i = 0; i < size; ++i) {
                const u32 plus = weights.draw(16 * group + l, output, p.first + (u32)(from + i), p.layer, k0, k1);
                u32 even[4], odd[4];
#pragma unroll
                for (int w = 0; w < 4; ++w) {
                    even[w] = __ballot_sync(ALL, (plus >> (2 * w)) & 1);
                    odd[w] = __ballot_sync(ALL, (plus >> (2 * w + 1)) & 1);
                }
                if (l < 4) {
                    const int w = l, half = lane & 16;
                    const u32 e = w == 0 ? even[0] : w == 1 ? even[1] : w == 2 ? even[2] : even[3];
                    const u32 o = w == 0 ? odd[0] : w == 1 ? odd[1] : w == 2 ? odd[2] : odd[3];
                    drawn[(i * 4 + w) * 16 + output_in_block] =
                        spread((e >> half) & 0xFFFFu) | (spread((o >> half) & 0xFFFFu) << 1);
                }
            }
            __syncthreads();
            for (int i = threadIdx.x; i < size * 64; i += blockDim.x) {
                const int word = 4 * group + ((i >> 4) & 3);
                const i64 line = ((i64)(from + (i >> 6)) * blocks + block) * words + word;
                if (word < words) static_cast<u32*>(p.out)[line * 16 + (i & 15)] = drawn[i];
            }
            __syncthreads();
        }
    }
}

KERNEL(draw, 256, 3, Sampling) {
    const int l = threadIdx.x & 15;
    const int groups = (p.inputs + 127) / 128;
    const u32 k0 = (u32)*p.seed, k1 = (u32)((u64)*p.seed >> 32);
    const i64 tiles = (i64)groups * ((p.outputs + 15) / 16);
    for (i64 tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int group = (int)(tile % groups), output = (int)(tile / groups) * 16 + (threadIdx.x >> 4);
        const u32 plus =
            Eight(p, output, group, l).draw(16 * group + l, output, p.first, p.layer, k0, k1);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const i64 k = 128ll * group + 32 * (i >> 1) + 2 * l + (i & 1), at = (i64)output * p.inputs + k;
            if (output >= p.outputs || k >= p.inputs) continue;
            const float natural = p.natural[at];
            static_cast<float*>(p.out)[at] = natural != natural ? natural : (plus >> i) & 1 ? 1.0f : -1.0f;
        }
    }
}
