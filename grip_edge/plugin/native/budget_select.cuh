// Device code of BudgetSelect: which tokens are kept, and their rows.
//
//     scores [B,N], features [B,N,D], K  ->  indices int64 [B,K] ascending, kept [B,K,D]
//
// Ties go to the lower index; NaN counts as -infinity; -0 equals +0. Two kernels:
//
//   select_tokens  one block per row of scores. Four radix passes of 8 bits over order-preserving keys find the K-th
//                  largest key (256 counters in shared memory); one pass over the tokens in order then writes the indices
//                  of all keys above it and of the first keys equal to it. Keys are made anew in every pass: scores stay
//                  in the cache, and shared memory does not grow with N.
//   gather_rows    one block per kept token, 16 bytes per thread and step where addresses allow it.
//
// Nothing here calls the host or TensorRT, so that the same source also runs on CPU threads (tests/plugin).
// Not here: launching (budget_select.cu), TensorRT (budget_select_plugin.cpp).

#pragma once

#include <cstdint>

namespace grip
{

constexpr int kWarpSize = 32;
constexpr int kMaxWarps = 32;
constexpr int kRadixBits = 8;
constexpr int kBins = 1 << kRadixBits;
constexpr uint32_t kMinusInfinityKey = 0x007fffffu;

// Larger scores have larger keys.
template <typename Score>
__device__ uint32_t order_key(Score score)
{
    float const wide = to_float(score);
    if (wide != wide)
    {
        return kMinusInfinityKey;
    }
    uint32_t const bits = wide == 0.0f ? 0u : float_bits(wide);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The K-th largest key of a row, and how many keys equal to it are kept.
struct Threshold
{
    uint32_t key;
    int ties;
};

template <typename Score>
__device__ Threshold find_threshold(Score const* scores, int tokens, int kept)
{
    __shared__ int counts[kBins];
    __shared__ uint32_t shared_key;
    __shared__ int shared_ties;

    uint32_t key = 0;
    int missing = kept;
    for (int shift = 32 - kRadixBits; shift >= 0; shift -= kRadixBits)
    {
        for (int bin = threadIdx.x; bin < kBins; bin += blockDim.x)
        {
            counts[bin] = 0;
        }
        __syncthreads();
        // Only keys that agree with the bits found so far take part; in the first pass all do.
        uint32_t const known = shift == 32 - kRadixBits ? 0u : ~0u << (shift + kRadixBits);
        for (int i = threadIdx.x; i < tokens; i += blockDim.x)
        {
            uint32_t const candidate = order_key(scores[i]);
            if ((candidate & known) == key)
            {
                atomicAdd(&counts[(candidate >> shift) & (kBins - 1)], 1);
            }
        }
        __syncthreads();
        if (threadIdx.x == 0)
        {
            int bin = kBins - 1;
            while (counts[bin] < missing)
            {
                missing -= counts[bin--];
            }
            shared_key = key | static_cast<uint32_t>(bin) << shift;
            shared_ties = missing;
        }
        __syncthreads();
        key = shared_key;
        missing = shared_ties;
    }
    return {key, missing};
}

template <typename Score>
__global__ void select_tokens(Score const* all_scores, int tokens, int kept, int64_t* all_indices)
{
    __shared__ int warp_above[kMaxWarps];
    __shared__ int warp_equal[kMaxWarps];

    Score const* const scores = all_scores + static_cast<int64_t>(blockIdx.x) * tokens;
    int64_t* const indices = all_indices + static_cast<int64_t>(blockIdx.x) * kept;
    Threshold const threshold = find_threshold(scores, tokens, kept);

    int const lane = threadIdx.x % kWarpSize;
    int const warp = threadIdx.x / kWarpSize;
    int const warps = blockDim.x / kWarpSize;
    uint32_t const lower_lanes = (1u << lane) - 1u;
    int above_before = 0; // of the tokens of earlier rounds, the same number in all threads
    int equal_before = 0;
    for (int start = 0; start < tokens; start += blockDim.x)
    {
        int const i = start + threadIdx.x;
        uint32_t const key = i < tokens ? order_key(scores[i]) : 0u;
        bool const is_above = i < tokens && key > threshold.key;
        bool const is_equal = i < tokens && key == threshold.key;
        uint32_t const above_lanes = __ballot_sync(0xffffffffu, is_above);
        uint32_t const equal_lanes = __ballot_sync(0xffffffffu, is_equal);
        if (lane == 0)
        {
            warp_above[warp] = __popc(above_lanes);
            warp_equal[warp] = __popc(equal_lanes);
        }
        __syncthreads();
        int above = above_before + __popc(above_lanes & lower_lanes);
        int equal = equal_before + __popc(equal_lanes & lower_lanes);
        for (int other = 0; other < warps; ++other)
        {
            above += other < warp ? warp_above[other] : 0;
            equal += other < warp ? warp_equal[other] : 0;
            above_before += warp_above[other];
            equal_before += warp_equal[other];
        }
        if (is_above || (is_equal && equal < threshold.ties))
        {
            indices[above + (equal < threshold.ties ? equal : threshold.ties)] = i;
        }
        __syncthreads(); // before the counts of this round are overwritten
    }
}

// A row is ``units`` times a Unit.
template <typename Unit>
__global__ void gather_rows(
    Unit const* features, int64_t units, int tokens, int kept, int64_t const* indices, Unit* kept_features)
{
    int64_t const token = indices[static_cast<int64_t>(blockIdx.y) * kept + blockIdx.x];
    Unit const* const from = features + (static_cast<int64_t>(blockIdx.y) * tokens + token) * units;
    Unit* const to = kept_features + (static_cast<int64_t>(blockIdx.y) * kept + blockIdx.x) * units;
    for (int64_t i = threadIdx.x; i < units; i += blockDim.x)
    {
        to[i] = from[i];
    }
}

} // namespace grip
