// Where the loader of a product finds its activations.
#pragma once
#include "product.cuh"

// In the rows of a matrix ...
struct Flat {
    typedef Product Arguments;
    struct Row {};
    static INLINE const Product& product(const Arguments& p) { return p; }
    static INLINE void prepare(Row*, int, const Arguments&, const Tile&) {}

    const float* base;
    bool present;

    INLINE Flat(const Row*, int local, const Arguments& p, const Tile& tile)
        : base(tile.values<float>(p) + (tile.row + local) * p.values_row), present(tile.row + local < p.rows) {}
    struct Input {
        int k;
        INLINE Input(const Arguments&, int k) : k(k) {}
    };
    INLINE float at(const Arguments& p, const Input& input) const {
        return present && input.k < p.inputs ? base[input.k] : 0.0f;
    }
};

// ... or places of an image (a convolution). Mirrored by varbnn.kernels.cuda.arguments.Convolution.
struct Convolution {
    Product product;
    int size[3], out[3], kernel[3], stride[3], before[3], dilation[3];
    int channels, group_channels;
};

struct Patch {
    typedef Convolution Arguments;
    struct Row {
        const float* image;
        int at[3], present;
    };
    static INLINE const Product& product(const Arguments& p) { return p.product; }

    // The corners of the tile's patches, divided out once and kept in shared memory.
    static INLINE void prepare(Row* rows, int count, const Arguments& p, const Tile& tile) {
        const i64 places = (i64)p.out[0] * p.out[1] * p.out[2];
        for (int local = threadIdx.x; local < count; local += blockDim.x) {
            const i64 row = tile.row + local, place = row % places;
            Row& to = rows[local];
            to.at[2] = (int)(place % p.out[2]) * p.stride[2] - p.before[2];
            to.at[1] = (int)(place / p.out[2] % p.out[1]) * p.stride[1] - p.before[1];
            to.at[0] = (int)(place / p.out[2] / p.out[1]) * p.stride[0] - p.before[0];
            to.image = tile.values<float>(p.product) + row / places * p.product.values_row;
            to.present = row < p.product.rows;
        }
        __syncthreads();
    }

    const Row& row;
    INLINE Patch(const Row* rows, int local, const Arguments&, const Tile&) : row(rows[local]) {}
    struct Input {
        int channel, d[3];
        bool present;
        INLINE Input(const Arguments& p, int k) : present(k < p.product.inputs) {
            const u32 tap = (u32)k / (u32)p.group_channels;
            channel = k - (int)tap * p.group_channels;
            d[2] = (int)(tap % (u32)p.kernel[2]) * p.dilation[2];
            d[1] = (int)(tap / (u32)p.kernel[2] % (u32)p.kernel[1]) * p.dilation[1];
            d[0] = (int)(tap / (u32)p.kernel[2] / (u32)p.kernel[1]) * p.dilation[0];
        }
    };
    INLINE float at(const Arguments& p, const Input& input) const {
        const int a = row.at[0] + input.d[0], b = row.at[1] + input.d[1], c = row.at[2] + input.d[2];
        const bool inside = row.present && input.present && (u32)a < (u32)p.size[0] && (u32)b < (u32)p.size[1] &&
                            (u32)c < (u32)p.size[2];
        return inside ? row.image[(((i64)a * p.size[1] + b) * p.size[2] + c) * p.channels + input.channel] : 0.0f;
    }
};
