// As much of CUDA as budget_select.cuh uses, on threads of the CPU: one thread per thread of a block, blocks one by one.
#pragma once

#include <atomic>
#include <barrier>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __shared__ static

struct Index
{
    int x, y;
};

inline thread_local Index threadIdx{0, 0};
inline Index blockIdx{0, 0};
inline Index blockDim{1, 1};

struct Block
{
    explicit Block(int threads) : all(threads)
    {
        for (int first = 0; first < threads; first += 32)
        {
            warps.push_back(std::make_unique<std::barrier<>>(32));
        }
        ballots = std::vector<std::atomic<uint32_t>>(threads / 32);
    }
    std::barrier<> all;
    std::vector<std::unique_ptr<std::barrier<>>> warps;
    std::vector<std::atomic<uint32_t>> ballots;
};

inline Block* block = nullptr;

inline void __syncthreads()
{
    block->all.arrive_and_wait();
}

inline uint32_t __ballot_sync(uint32_t, bool vote)
{
    int const warp = threadIdx.x / 32;
    auto& barrier = *block->warps[warp];
    barrier.arrive_and_wait();
    if (threadIdx.x % 32 == 0)
    {
        block->ballots[warp] = 0;
    }
    barrier.arrive_and_wait();
    block->ballots[warp] |= vote ? 1u << (threadIdx.x % 32) : 0u;
    barrier.arrive_and_wait();
    return block->ballots[warp];
}

inline int __popc(uint32_t bits)
{
    return __builtin_popcount(bits);
}

inline int atomicAdd(int* address, int value)
{
    return std::atomic_ref<int>(*address).fetch_add(value);
}

inline void launch(Index grid, int threads, std::function<void()> const& kernel)
{
    Block one(threads);
    block = &one;
    blockDim = {threads, 1};
    for (int y = 0; y < grid.y; ++y)
    {
        for (int x = 0; x < grid.x; ++x)
        {
            blockIdx = {x, y};
            std::vector<std::thread> running;
            for (int thread = 0; thread < threads; ++thread)
            {
                running.emplace_back([&kernel, thread] {
                    threadIdx = {thread, 0};
                    kernel();
                });
            }
            for (auto& thread : running)
            {
                thread.join();
            }
        }
    }
}
