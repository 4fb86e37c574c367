// The C interface of BudgetSelect: what the plugin calls, and what tests load with ctypes.

#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C"
{
#endif

    // Type of the scores. Features are copied, so only their bytes count.
    enum GripScoreType
    {
        GRIP_SCORE_FP32 = 0,
        GRIP_SCORE_FP16 = 1,
        GRIP_SCORE_BF16 = 2
    };

    // All pointers are device memory: scores [batch,tokens], features [batch,tokens,row_bytes],
    // kept_features [batch,kept,row_bytes], kept_indices [batch,kept]. 1 <= kept <= tokens <= 16384, batch <= 65535.
    // Returns a cudaError_t; work is only queued on the stream.
    int grip_budget_select(void const* scores, int score_type, void const* features, int64_t row_bytes, int batch,
        int tokens, int kept, void* kept_features, int64_t* kept_indices, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
