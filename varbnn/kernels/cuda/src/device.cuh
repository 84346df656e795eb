// What the kernels need of CUDA, without any header: NVRTC brings none. The tests give the same names on a CPU.
#pragma once

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

struct alignas(8) Two { u32 x, y; };
struct alignas(16) Four { u32 x, y, z, w; };
struct alignas(16) FloatFour { float x, y, z, w; };

#ifdef VARBNN_HOST
#include "host.h"
#else

// A kernel takes one struct by value. __grid_constant__ lets it be read in place, without a copy per thread.
// `resident`: how many blocks of threads must fit on a multiprocessor, which bounds the registers.
#define KERNEL(name, threads, resident, Arguments) \
    extern "C" __global__ void __launch_bounds__(threads, resident) name(const __grid_constant__ Arguments p)
#define INLINE __device__ __forceinline__
#define SHARED(type, name) extern __shared__ Four shared_memory[]; type* name = reinterpret_cast<type*>(shared_memory)

// c (16 x 8) += a (16 x 256 bits) AND b (256 bits x 8), counted. Only AND is native on every chip from 8.0 to 9.0.
INLINE void mma_and_popc(int (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// c (16 x 8, float32) += a (16 x 16, bfloat16) b (16 x 8, bfloat16)
INLINE void mma_bf16(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// c (16 x 8, int32) += a (16 x 32, int8) b (32 x 8, int8)
INLINE void mma_int8(int (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
#endif

constexpr u32 ALL = 0xFFFFFFFFu;  // every lane of a warp

INLINE int lane_id() { return threadIdx.x & 31; }
INLINE int warp_id() { return threadIdx.x >> 5; }

// Read-only 8 and 16 byte loads; the address must be aligned to the size.
INLINE Two load_two(const u32* from) { return *reinterpret_cast<const Two*>(from); }
INLINE Four load_four(const u32* from) { return *reinterpret_cast<const Four*>(from); }

// Sum over the four lanes that hold pieces of one row of an operand.
INLINE int sum_of_quad(int value) {
    value += __shfl_xor_sync(ALL, value, 1);
    return value + __shfl_xor_sync(ALL, value, 2);
}
