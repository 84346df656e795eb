// CUDA on a CPU, for tests: the kernels' own sources compile against this in place of the device's intrinsics.
//
// A block of threads runs as one fiber per thread. A fiber runs until it waits, at a barrier of its block or at an
// operation of its warp, so the kernels see each other's results only where they synchronise. What this cannot show:
// races between warps that really run at once, faults of alignment, speed.
#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#define INLINE inline
#define SHARED(type, name) type* name = reinterpret_cast<type*>(host::shared_memory)
#define KERNEL(name, threads, resident, Arguments)                                                              \
    static void name(const Arguments& p);                                                                       \
    extern "C" unsigned size_##name() { return sizeof(Arguments); }                                             \
    extern "C" unsigned threads_##name() { return threads; }                                                    \
    extern "C" void launch_##name(unsigned x, unsigned y, unsigned block, unsigned shared, const void* p) {     \
        static_assert(threads % 32 == 0, "whole warps only");                                                   \
        host::launch([](const void* arguments) { name(*static_cast<const Arguments*>(arguments)); }, x, y, block, \
                     shared, p);                                                                                \
    }                                                                                                           \
    static void name(const Arguments& p)

struct Dimensions {
    unsigned x, y, z;
};
inline Dimensions threadIdx, blockIdx, blockDim, gridDim;

namespace host {

constexpr size_t SHARED_LIMIT = 227 * 1024, STACK = 64 * 1024;
alignas(128) inline unsigned char shared_memory[SHARED_LIMIT + 128];

struct Registers {
    u32 words[16];
};

// Where the 32 fibers of a warp leave what they exchange. Two results, since a fast fiber may already be at the next
// operation while a slow one still reads the last.
struct Warp {
    int arrived = 0, kind = 0;
    long turn = 0;
    Registers posted[32], result[2][32];
};

struct Fiber {
    ucontext_t start;
    jmp_buf at;
    bool begun = false, done = false;
    unsigned thread = 0;
    std::vector<char> stack;
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    int waiting = 0, live = 0;
    long barrier = 0, progress = 0;
};

inline Block block;
inline Fiber* running = nullptr;
inline jmp_buf scheduler;
inline void (*body)(const void*) = nullptr;
inline const void* arguments = nullptr;

[[noreturn]] inline void fail(const char* why) {
    std::fprintf(stderr, "block (%u, %u), thread %u: %s\n", blockIdx.x, blockIdx.y, threadIdx.x, why);
    std::abort();
}

inline void yield() {
    if (_setjmp(running->at) == 0) _longjmp(scheduler, 1);
    threadIdx.x = running->thread;
}

inline void enter() {
    threadIdx.x = running->thread;
    body(arguments);
    running->done = true;
    --block.live;
    ++block.progress;
    if (block.waiting) fail("a thread returns while others wait at a barrier");
    _longjmp(scheduler, 1);
}

// Every lane of the warp gives its registers and gets those of all.
inline const Registers* exchange(const Registers& mine, int kind) {
    Warp& warp = block.warps[threadIdx.x / 32];
    if (warp.arrived == 0) warp.kind = kind;
    if (warp.kind != kind) fail("lanes of a warp are at different operations");
    warp.posted[threadIdx.x % 32] = mine;
    const long turn = warp.turn;
    ++block.progress;
    if (++warp.arrived == 32) {
        std::memcpy(warp.result[turn & 1], warp.posted, sizeof warp.posted);
        warp.arrived = 0;
        ++warp.turn;
    }
    while (warp.turn == turn) yield();
    return warp.result[turn & 1];
}

inline void run_block() {
    const unsigned size = blockDim.x;
    // what a block finds in shared memory is nothing that it may use: NaN, and absurd as a whole number
    std::memset(shared_memory, 0xFF, SHARED_LIMIT);
    block.warps.assign(size / 32, Warp());
    block.fibers.resize(size);
    block.live = (int)size;
    block.waiting = 0;
    for (unsigned i = 0; i < size; ++i) {
        Fiber& fiber = block.fibers[i];
        fiber.begun = fiber.done = false;
        fiber.thread = i;
        fiber.stack.resize(STACK);
    }
    while (block.live > 0) {
        const long before = block.progress;
        for (volatile unsigned i = 0; i < size; i = i + 1) {
            Fiber& fiber = block.fibers[i];
            if (fiber.done) continue;
            running = &fiber;
            if (_setjmp(scheduler) != 0) continue;
            if (fiber.begun) _longjmp(fiber.at, 1);
            fiber.begun = true;
            getcontext(&fiber.start);
            fiber.start.uc_stack.ss_sp = fiber.stack.data();
            fiber.start.uc_stack.ss_size = STACK;
            fiber.start.uc_link = nullptr;
            makecontext(&fiber.start, enter, 0);
            setcontext(&fiber.start);
        }
        if (before == block.progress) fail("no thread can go on: a barrier or a warp operation misses threads");
    }
}

inline void launch(void (*kernel)(const void*), unsigned x, unsigned y, unsigned threads, unsigned shared,
                   const void* p) {
    if (shared > SHARED_LIMIT) fail("too much shared memory");
    body = kernel;
    arguments = p;
    gridDim = {x, y, 1};
    blockDim = {threads, 1, 1};
    for (unsigned j = 0; j < y; ++j)
        for (unsigned i = 0; i < x; ++i) {
            blockIdx = {i, j, 0};
            std::memset(shared_memory + shared, 0xA5, 128);
            run_block();
            for (int k = 0; k < 128; ++k)
                if (shared_memory[shared + k] != (shared + k < SHARED_LIMIT ? 0xFF : 0xA5))
                    fail("wrote beyond the shared memory it asked for");
        }
}

}  // namespace host

// ---- intrinsics ----------------------------------------------------------------------------------------------------

inline void __syncthreads() {
    const long barrier = host::block.barrier;
    ++host::block.progress;
    if (++host::block.waiting == (int)blockDim.x) {
        host::block.waiting = 0;
        ++host::block.barrier;
    }
    while (host::block.barrier == barrier) host::yield();
}

enum Kind { SYNC = 1, BALLOT, SHUFFLE, AND_POPC, BF16, INT8 };

inline void __syncwarp() { host::exchange({}, SYNC); }

inline u32 __ballot_sync(u32, int predicate) {
    const host::Registers* all = host::exchange({{predicate != 0}}, BALLOT);
    u32 word = 0;
    for (int lane = 0; lane < 32; ++lane) word |= all[lane].words[0] << lane;
    return word;
}

template <typename T>
inline T __shfl_xor_sync(u32, T value, int mask) {
    host::Registers mine{};
    static_assert(sizeof(T) <= sizeof mine, "fits");
    std::memcpy(&mine, &value, sizeof value);
    const host::Registers* all = host::exchange(mine, SHUFFLE);
    std::memcpy(&value, &all[(threadIdx.x % 32) ^ mask], sizeof value);
    return value;
}

inline int __popc(u32 word) { return __builtin_popcount(word); }
inline u32 __umulhi(u32 a, u32 b) { return (u32)(((u64)a * b) >> 32); }
inline u32 __float_as_uint(float value) {
    u32 bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}
inline float __uint_as_float(u32 bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline float __int_as_float(int bits) { return __uint_as_float((u32)bits); }
inline u32 __byte_perm(u32 low, u32 high, u32 selector) {
    const u64 both = (u64)high << 32 | low;
    u32 found = 0;
    for (int i = 0; i < 4; ++i) found |= (u32)(both >> (8 * ((selector >> (4 * i)) & 7)) & 0xFF) << (8 * i);
    return found;
}
inline float __fmul_rn(float a, float b) { return a * b; }  // compiled without contraction
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline int __float2int_rn(float value) { return (int)std::nearbyintf(value); }
inline u32 __float2uint_rn(float value) { return (u32)std::nearbyintf(value); }

#include "tensor_cores.h"
