// The kernels of BudgetSelect on CPU threads, for ctypes.
#include "cuda_on_threads.h"

namespace grip
{
inline float to_float(float value)
{
    return value;
}
inline uint32_t float_bits(float value)
{
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
} // namespace grip

#include "budget_select.cuh"

extern "C" void select_on_threads(
    float const* scores, int batch, int tokens, int kept, int threads, int64_t* indices)
{
    launch({batch, 1}, threads, [&] { grip::select_tokens<float>(scores, tokens, kept, indices); });
}

extern "C" void gather_on_threads(uint32_t const* features, int64_t units, int batch, int tokens, int kept,
    int64_t const* indices, uint32_t* kept_features)
{
    launch({kept, batch}, 32, [&] {
        grip::gather_rows<uint32_t>(features, units, tokens, kept, indices, kept_features);
    });
}
