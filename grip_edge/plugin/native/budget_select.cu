// Launches the kernels of BudgetSelect.

#include "budget_select.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace grip
{

__device__ inline float to_float(float value)
{
    return value;
}
__device__ inline float to_float(__half value)
{
    return __half2float(value);
}
__device__ inline float to_float(__nv_bfloat16 value)
{
    return __bfloat162float(value);
}
__device__ inline uint32_t float_bits(float value)
{
    return __float_as_uint(value);
}

} // namespace grip

#include "budget_select.cuh"

namespace
{

constexpr int kMaxTokens = 16384;
constexpr int kMaxBatch = 65535;
constexpr int kSelectThreads = 1024;

template <typename Score>
void launch_select(void const* scores, int batch, int tokens, int kept, int64_t* indices, cudaStream_t stream)
{
    grip::select_tokens<<<batch, kSelectThreads, 0, stream>>>(static_cast<Score const*>(scores), tokens, kept, indices);
}

template <typename Unit>
bool launch_gather(void const* features, int64_t row_bytes, int batch, int tokens, int kept, int64_t const* indices,
    void* kept_features, cudaStream_t stream)
{
    auto const aligned = [](void const* address) { return reinterpret_cast<uintptr_t>(address) % sizeof(Unit) == 0; };
    if (row_bytes % sizeof(Unit) != 0 || !aligned(features) || !aligned(kept_features))
    {
        return false;
    }
    int64_t const units = row_bytes / sizeof(Unit);
    int const threads = units >= 256 ? 256 : units >= 128 ? 128 : 64;
    dim3 const grid(kept, batch);
    grip::gather_rows<<<grid, threads, 0, stream>>>(
        static_cast<Unit const*>(features), units, tokens, kept, indices, static_cast<Unit*>(kept_features));
    return true;
}

} // namespace

extern "C" int grip_budget_select(void const* scores, int score_type, void const* features, int64_t row_bytes,
    int batch, int tokens, int kept, void* kept_features, int64_t* kept_indices, cudaStream_t stream)
{
    bool const valid = 1 <= kept && kept <= tokens && tokens <= kMaxTokens && 1 <= batch && batch <= kMaxBatch;
    if (!valid || row_bytes < 1)
    {
        return cudaErrorInvalidValue;
    }
    switch (score_type)
    {
    case GRIP_SCORE_FP32: launch_select<float>(scores, batch, tokens, kept, kept_indices, stream); break;
    case GRIP_SCORE_FP16: launch_select<__half>(scores, batch, tokens, kept, kept_indices, stream); break;
    case GRIP_SCORE_BF16: launch_select<__nv_bfloat16>(scores, batch, tokens, kept, kept_indices, stream); break;
    default: return cudaErrorInvalidValue;
    }
    cudaError_t const selected = cudaPeekAtLastError();
    if (selected != cudaSuccess)
    {
        return selected;
    }
    auto const gather = [&](auto launch) {
        return launch(features, row_bytes, batch, tokens, kept, kept_indices, kept_features, stream);
    };
    if (!gather(launch_gather<uint4>) && !gather(launch_gather<uint32_t>) && !gather(launch_gather<uint16_t>))
    {
        gather(launch_gather<uint8_t>);
    }
    return cudaPeekAtLastError();
}
