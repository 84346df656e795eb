// Tensor cores on a CPU: fragments as in the PTX manual, lane = 4 g + t. Included by host.h.
#pragma once

namespace host {

template <typename C>
Registers pack(const C (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    Registers mine{{a[0], a[1], a[2], a[3], b0, b1}};
    std::memcpy(mine.words + 6, c, 16);
    return mine;
}

// Calls `entry(index of c, lanes that hold the row of a, which of its register pairs, lanes that hold the column of b)`
template <typename Entry>
void for_each_of_mine(Entry entry) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (int i = 0; i < 4; ++i) entry(i, 4 * g, i >> 1, 4 * (2 * t + (i & 1)));
}

inline float bf16(u32 word, int half) { return __uint_as_float(half ? word & 0xFFFF0000u : word << 16); }

// Sums of products as the least exact tensor cores form them: 8 products at a time, all terms lined up with the largest
// and cut off 24 bits below it.
inline float add_cut(float sum, const double* products) {
    double terms[9] = {sum};
    std::memcpy(terms + 1, products, 8 * sizeof(double));
    double largest = 0;
    for (double term : terms) {
        if (!std::isfinite(term)) {
            double plain = 0;
            for (double each : terms) plain += each;
            return (float)plain;
        }
        largest = std::fmax(largest, std::fabs(term));
    }
    if (largest == 0) return 0.0f;
    const double unit = std::ldexp(1.0, std::ilogb(largest) - 23);
    double total = 0;
    for (double term : terms) total += std::trunc(term / unit) * unit;
    if (total == 0) return 0.0f;
    const double last = std::ldexp(1.0, std::ilogb(total) - 23);
    return (float)(std::trunc(total / last) * last);
}

}  // namespace host

inline void mma_and_popc(int (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    const host::Registers* all = host::exchange(host::pack(c, a, b0, b1), AND_POPC);
    host::for_each_of_mine([&](int i, int row, int upper, int column) {
        for (int t = 0; t < 4; ++t)
            for (int k = 0; k < 2; ++k)
                c[i] += __popc(all[row + t].words[2 * k + upper] & all[column + t].words[4 + k]);
    });
}

inline void mma_bf16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    const host::Registers* all = host::exchange(host::pack(c, a, b0, b1), BF16);
    host::for_each_of_mine([&](int i, int row, int upper, int column) {
        for (int k = 0; k < 2; ++k) {
            double products[8];
            for (int t = 0; t < 4; ++t)
                for (int half = 0; half < 2; ++half)
                    products[2 * t + half] = (double)host::bf16(all[row + t].words[2 * k + upper], half) *
                                             host::bf16(all[column + t].words[4 + k], half);
            c[i] = host::add_cut(c[i], products);
        }
    });
}

inline void mma_int8(int (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    const host::Registers* all = host::exchange(host::pack(c, a, b0, b1), INT8);
    host::for_each_of_mine([&](int i, int row, int upper, int column) {
        for (int t = 0; t < 4; ++t)
            for (int k = 0; k < 2; ++k)
                for (int byte = 0; byte < 4; ++byte)
                    c[i] += (int)(int8_t)(all[row + t].words[2 * k + upper] >> (8 * byte)) *
                            (int8_t)(all[column + t].words[4 + k] >> (8 * byte));
    });
}
