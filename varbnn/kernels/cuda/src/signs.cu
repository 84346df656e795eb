// Signs of activations to words, and the patches of a convolution over words.
#include "device.cuh"

// Mirrored by varbnn.kernels.cuda.arguments.Signs.
struct Signs {
    const float* values;  // (rows, length)
    u32* words;
    int* counts;          // null where nobody asks
    i64 rows;
    int length;
};

// A warp has a row; lane i keeps the i-th of 32 words, so that they are stored together.
KERNEL(pack_signs, 256, 4, Signs) {
    const int lane = lane_id(), width = (p.length + 31) / 32;
    for (i64 row = (i64)blockIdx.x * 8 + warp_id(); row < p.rows; row += (i64)gridDim.x * 8) {
        const float* values = p.values + row * p.length;
        int count = 0;
        for (int from = 0; from < width; from += 32) {
            u32 own = 0;
            const int size = width - from < 32 ? width - from : 32;
            for (int j = 0; j < size; ++j) {
                const i64 k = 32ll * (from + j) + lane;
                const u32 word = __ballot_sync(ALL, k < p.length && values[k] >= 0.0f);
                count += __popc(word);
                if (lane == j) own = word;
            }
            if (lane < size) p.words[row * width + from + lane] = own;
        }
        if (lane == 0 && p.counts) p.counts[row] = count;
    }
}

// Mirrored by varbnn.kernels.cuda.arguments.Unfold.
struct Unfold {
    const u32* values;  // (rows of images, *size, channel_words), the first of `images` images
    u32* patches;       // (images * places, groups, words): signs, 0 where a tap lies outside
    u32* inside;        // the same shape: which of them lie inside
    i64 images;
    int size[3], out[3], kernel[3], stride[3], before[3], dilation[3];
    int groups, group_channels, channel_words, words;
};

// `length` <= 32 bits from bit `from` on.
INLINE u32 bits_from(const u32* words, i64 from, int length) {
    const int shift = (int)(from & 31);
    u32 found = words[from >> 5] >> shift;
    if (shift + length > 32) found |= words[(from >> 5) + 1] << (32 - shift);
    return length == 32 ? found : found & ((1u << length) - 1);
}

// A thread has one word: the taps that it meets are copied in runs of channels.
KERNEL(unfold_bits, 256, 4, Unfold) {
    const i64 places = (i64)p.out[0] * p.out[1] * p.out[2];
    const i64 total = p.images * places * p.groups * p.words;
    const i64 inputs = (i64)p.kernel[0] * p.kernel[1] * p.kernel[2] * p.group_channels;
    for (i64 index = (i64)blockIdx.x * 256 + threadIdx.x; index < total; index += (i64)gridDim.x * 256) {
        const int group = (int)(index / p.words % p.groups);
        const i64 row = index / p.words / p.groups, place = row % places, image = row / places;
        const int o2 = (int)(place % p.out[2]), o1 = (int)(place / p.out[2] % p.out[1]);
        const int o0 = (int)(place / p.out[2] / p.out[1]);
        i64 k = 32 * (index % p.words);
        u32 signs = 0, inside = 0;
        for (int at = 0; at < 32 && k < inputs;) {
            const int tap = (int)(k / p.group_channels), channel = (int)(k % p.group_channels);
            const int left = p.group_channels - channel, run = left < 32 - at ? left : 32 - at;
            const i64 i2 = (i64)o2 * p.stride[2] - p.before[2] + (i64)(tap % p.kernel[2]) * p.dilation[2];
            const i64 i1 =
                (i64)o1 * p.stride[1] - p.before[1] + (i64)(tap / p.kernel[2] % p.kernel[1]) * p.dilation[1];
            const i64 i0 =
                (i64)o0 * p.stride[0] - p.before[0] + (i64)(tap / p.kernel[2] / p.kernel[1]) * p.dilation[0];
            if (i0 >= 0 && i0 < p.size[0] && i1 >= 0 && i1 < p.size[1] && i2 >= 0 && i2 < p.size[2]) {
                const i64 pixel = ((image * p.size[0] + i0) * p.size[1] + i1) * p.size[2] + i2;
                const i64 from = (i64)group * p.group_channels + channel;
                signs |= bits_from(p.values + pixel * p.channel_words, from, run) << at;
                inside |= (run == 32 ? ALL : (1u << run) - 1) << at;
            }
            at += run;
            k += run;
        }
        p.patches[index] = signs;
        p.inside[index] = inside;
    }
}
