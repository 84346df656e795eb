// The last layer with its softmax: probabilities and entropies averaged over networks, without all their logits.
#include "product.cuh"

// Mirrored by varbnn.kernels.cuda.arguments.Predictive.
struct Predictive {
    Product product;
    float* logits;   // (blocks of threads, ROWS, outputs): what a block works on
    float* means;    // (parts, rows, outputs), sums over the samples of a part
    float* entropy;  // (parts, rows). The grid is (tiles of rows, parts), the samples are dealt out to the parts
    int packed;      // activations are signs
};

constexpr int WARPS = 8, PIECES = 16;  // a warp has two pieces of the inputs at a time, a word each, 16 outputs
constexpr int PIECE = 36;              // floats a piece takes in shared memory, so that two do not meet in a bank

// 1-bit times real: the inputs of 16 words are staged, each half-warp takes one of them.
template <int ROWS>
INLINE void add_real(float (&sum)[ROWS], const Product& p, const float* values, i64 row, const u32* weight,
                     bool present, float* staged) {
    const int piece = threadIdx.x >> 4;
    for (int from = 0; from < p.words; from += PIECES) {
        for (int i = threadIdx.x; i < ROWS * PIECES * 32; i += 32 * WARPS) {
            const int m = i / (PIECES * 32), k = i % (PIECES * 32);
            const i64 input = 32ll * from + k;
            staged[(m * PIECES + (k >> 5)) * PIECE + (k & 31)] =
                row + m < p.rows && input < p.inputs ? values[m * p.values_row + input] : 0.0f;
        }
        __syncthreads();
        const u32 w = present && from + piece < p.words ? weight[(i64)(from + piece) * 16] : 0;
#pragma unroll
        for (int k = 0; k < 32; k += 4) {
            float sign[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) sign[i] = __uint_as_float(((~w << (31 - k - i)) & 0x80000000u) | 0x3F800000u);
#pragma unroll
            for (int m = 0; m < ROWS; ++m) {
                const FloatFour x = *reinterpret_cast<const FloatFour*>(staged + (m * PIECES + piece) * PIECE + k);
                sum[m] = fmaf(x.w, sign[3], fmaf(x.z, sign[2], fmaf(x.y, sign[1], fmaf(x.x, sign[0], sum[m]))));
            }
        }
        __syncthreads();
    }
}

template <int ROWS>
INLINE void add_packed(float (&sum)[ROWS], const Product& p, const u32* values, i64 row, const u32* weight,
                       bool present) {
    const int piece = threadIdx.x >> 4;
    int wrong[ROWS] = {};
    for (int word = piece; word < p.words; word += PIECES) {
        const u32 w = present ? weight[(i64)word * 16] : 0;
#pragma unroll
        for (int m = 0; m < ROWS; ++m)
            if (row + m < p.rows) wrong[m] += __popc(values[m * p.values_row + word] ^ w);
    }
#pragma unroll
    for (int m = 0; m < ROWS; ++m) sum[m] = (float)((piece == 0 ? p.inputs : 0) - 2 * wrong[m]);
}

INLINE float largest_in_warp(float value) {
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) {
        const float other = __shfl_xor_sync(ALL, value, mask);
        value = other > value || other != other ? other : value;  // NaN wins
    }
    return value;
}

INLINE double sum_of_warp(double value) {
#pragma unroll
    for (int mask = 16; mask > 0; mask >>= 1) value += __shfl_xor_sync(ALL, value, mask);
    return value;
}

// One row of one network's logits: its probabilities are added to `mean`; gives its entropy. A whole warp works.
INLINE double add_softmax(const float* logits, float* mean, int outputs, bool first) {
    float largest = -__uint_as_float(0x7F800000u);
    for (int n = lane_id(); n < outputs; n += 32) {
        const float value = logits[n];
        largest = value > largest || value != value ? value : largest;
    }
    largest = largest_in_warp(largest);
    double sum = 0;
    for (int n = lane_id(); n < outputs; n += 32) sum += expf(logits[n] - largest);
    sum = sum_of_warp(sum);
    const float log_sum = logf((float)sum);
    double entropy = 0;
    for (int n = lane_id(); n < outputs; n += 32) {
        const float log_probability = logits[n] - largest - log_sum, probability = expf(log_probability);
        mean[n] = first ? probability : mean[n] + probability;
        if (probability != 0.0f) entropy -= (double)probability * log_probability;  // NaN counts
    }
    return sum_of_warp(entropy);
}

template <int ROWS>
INLINE void predict(const Predictive& arguments) {
    SHARED(float, shared);  // [ROWS][PIECES][PIECE] staged activations; [WARPS][ROWS][16] sums
    float* sums = shared + ROWS * PIECES * PIECE;
    const Product& p = arguments.product;
    const int part = blockIdx.y;
    float* logits = arguments.logits + ((i64)part * gridDim.x + blockIdx.x) * ROWS * p.outputs;
    for (i64 row = (i64)blockIdx.x * ROWS; row < p.rows; row += (i64)gridDim.x * ROWS) {
        float* means = arguments.means + ((i64)part * p.rows + row) * p.outputs;
        double entropy = 0;
        for (int s = part; s < p.samples; s += gridDim.y) {
            const i64 offset = s * p.values_sample + row * p.values_row;
            for (int block = 0; block < p.blocks; ++block) {
                const int n = 16 * block + (threadIdx.x & 15);
                const bool present = n < p.outputs;
                const u32* weight = p.weight + ((i64)s * p.blocks + block) * p.words * 16 + (threadIdx.x & 15);
                float sum[ROWS] = {};
                if (arguments.packed)
                    add_packed<ROWS>(sum, p, static_cast<const u32*>(p.values) + offset, row, weight, present);
                else
                    add_real<ROWS>(sum, p, static_cast<const float*>(p.values) + offset, row, weight, present, shared);
#pragma unroll
                for (int m = 0; m < ROWS; ++m) {
                    sum[m] += __shfl_xor_sync(ALL, sum[m], 16);
                    if (lane_id() < 16) sums[(warp_id() * ROWS + m) * 16 + lane_id()] = sum[m];
                }
                __syncthreads();
                for (int i = threadIdx.x; i < ROWS * 16; i += 32 * WARPS) {
                    const int m = i >> 4, output = 16 * block + (i & 15);
                    float value = 0.0f;
#pragma unroll
                    for (int w = 0; w < WARPS; ++w) value += sums[(w * ROWS + m) * 16 + (i & 15)];
                    if (output >= p.outputs) continue;
                    if (p.scale) value = __fmul_rn(value, p.scale[s * p.scale_sample + output]);
                    if (p.shift) value = __fadd_rn(value, p.shift[s * p.shift_sample + output]);
                    logits[(i64)m * p.outputs + output] = value;
                }
                __syncthreads();
            }
            if (warp_id() < ROWS && row + warp_id() < p.rows)
                entropy += add_softmax(logits + (i64)warp_id() * p.outputs, means + (i64)warp_id() * p.outputs,
                                       p.outputs, s == part);
            __syncthreads();
        }
        if (warp_id() < ROWS && row + warp_id() < p.rows && lane_id() == 0)
            arguments.entropy[(i64)part * p.rows + row + warp_id()] = (float)entropy;
    }
}

KERNEL(predictive_1, 256, 2, Predictive) { predict<1>(p); }
KERNEL(predictive_4, 256, 1, Predictive) { predict<4>(p); }

// Mirrored by varbnn.kernels.cuda.arguments.Average.
struct Average {
    const float* parts;  // (parts, size)
    float* out;          // (size)
    i64 size;
    int count, samples;
};

KERNEL(average, 256, 4, Average) {
    for (i64 i = (i64)blockIdx.x * 256 + threadIdx.x; i < p.size; i += (i64)gridDim.x * 256) {
        double sum = 0;
        for (int part = 0; part < p.count; ++part) sum += p.parts[part * p.size + i];
        p.out[i] = (float)(sum / p.samples);
    }
}
