// BudgetSelect as a TensorRT plugin: IPluginV3, for TensorRT 10.0 and newer and for TensorRT-RTX 1.7.
//
//     inputs   scores [B,N] fp32, fp16 or bf16; features [B,N,D] fp32, fp16 or bf16; shape input: budget int64 [1]
//     outputs  kept [B,K,D] in the features' type; indices int64 [B,K] ascending
//
// The budget is a shape input, so K is known on the host, and nothing waits for the device. No attributes, no state.
// Built on the device against its own TensorRT headers (CMakeLists.txt). The interface's version is
// grip_edge/plugin/interface.py's; change both together.

#include "budget_select.h"

#include <NvInfer.h>

#include <cstring>
#include <exception>

using namespace nvinfer1;

namespace
{

constexpr char const* kName = "BudgetSelect";
constexpr char const* kNamespace = "grip";
constexpr char const* kVersion = "1";

constexpr int32_t kScores = 0;
constexpr int32_t kFeatures = 1;
constexpr int32_t kInputs = 2;
constexpr int32_t kOutputs = 2;

bool is_float(DataType type)
{
    return type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16;
}

int64_t element_bytes(DataType type)
{
    return type == DataType::kFLOAT ? 4 : 2;
}

int score_type(DataType type)
{
    return type == DataType::kFLOAT ? GRIP_SCORE_FP32 : type == DataType::kHALF ? GRIP_SCORE_FP16 : GRIP_SCORE_BF16;
}

class BudgetSelect final : public IPluginV3,
                           public IPluginV3OneCore,
                           public IPluginV3OneBuild,
                           public IPluginV3OneRuntime
{
public:
    IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override
    {
        switch (type)
        {
        case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
        case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
        case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }

    IPluginV3* clone() noexcept override
    {
        return create();
    }

    static IPluginV3* create() noexcept
    {
        try
        {
            return new BudgetSelect();
        }
        catch (std::exception const&)
        {
            return nullptr;
        }
    }

    char const* getPluginName() const noexcept override
    {
        return kName;
    }

    char const* getPluginVersion() const noexcept override
    {
        return kVersion;
    }

    char const* getPluginNamespace() const noexcept override
    {
        return kNamespace;
    }

    int32_t getNbOutputs() const noexcept override
    {
        return kOutputs;
    }

    int32_t getOutputDataTypes(
        DataType* outputs, int32_t output_count, DataType const* inputs, int32_t input_count) const noexcept override
    {
        if (output_count != kOutputs || input_count < kInputs)
        {
            return 1;
        }
        outputs[0] = inputs[kFeatures];
        outputs[1] = DataType::kINT64;
        return 0;
    }

    int32_t getOutputShapes(DimsExprs const* inputs, int32_t input_count, DimsExprs const* shape_inputs,
        int32_t shape_input_count, DimsExprs* outputs, int32_t output_count, IExprBuilder&) noexcept override
    {
        if (input_count < kInputs || shape_input_count != 1 || output_count != kOutputs
            || inputs[kFeatures].nbDims != 3)
        {
            return 1;
        }
        // The "dimensions" of a shape input are its elements.
        IDimensionExpr const* const kept = shape_inputs[0].d[0];
        outputs[0].nbDims = 3;
        outputs[0].d[0] = inputs[kFeatures].d[0];
        outputs[0].d[1] = kept;
        outputs[0].d[2] = inputs[kFeatures].d[2];
        outputs[1].nbDims = 2;
        outputs[1].d[0] = inputs[kFeatures].d[0];
        outputs[1].d[1] = kept;
        return 0;
    }

    bool supportsFormatCombination(
        int32_t pos, DynamicPluginTensorDesc const* tensors, int32_t input_count, int32_t) noexcept override
    {
        PluginTensorDesc const& tensor = tensors[pos].desc;
        if (tensor.format != PluginFormat::kLINEAR)
        {
            return false;
        }
        if (pos < kInputs)
        {
            return is_float(tensor.type);
        }
        if (pos < input_count) // the budget, where a version of TensorRT counts it among the inputs
        {
            return tensor.type == DataType::kINT64;
        }
        return tensor.type == (pos == input_count ? tensors[kFeatures].desc.type : DataType::kINT64);
    }

    int32_t configurePlugin(
        DynamicPluginTensorDesc const*, int32_t, DynamicPluginTensorDesc const*, int32_t) noexcept override
    {
        return 0;
    }

    int32_t onShapeChange(PluginTensorDesc const*, int32_t, PluginTensorDesc const*, int32_t) noexcept override
    {
        return 0;
    }

    int32_t enqueue(PluginTensorDesc const* inputs, PluginTensorDesc const* outputs, void const* const* input_data,
        void* const* output_data, void*, cudaStream_t stream) noexcept override
    {
        Dims const& features = inputs[kFeatures].dims;
        int64_t const row_bytes = features.d[2] * element_bytes(inputs[kFeatures].type);
        return grip_budget_select(input_data[kScores], score_type(inputs[kScores].type), input_data[kFeatures],
            row_bytes, static_cast<int>(features.d[0]), static_cast<int>(features.d[1]),
            static_cast<int>(outputs[0].dims.d[1]), output_data[0], static_cast<int64_t*>(output_data[1]), stream);
    }

    IPluginV3* attachToContext(IPluginResourceContext*) noexcept override
    {
        return clone();
    }

    PluginFieldCollection const* getFieldsToSerialize() noexcept override
    {
        return &fields_;
    }

private:
    PluginFieldCollection fields_{0, nullptr};
};

class BudgetSelectCreator final : public IPluginCreatorV3One
{
public:
    IPluginV3* createPlugin(char const*, PluginFieldCollection const*, TensorRTPhase) noexcept override
    {
        return BudgetSelect::create();
    }

    PluginFieldCollection const* getFieldNames() noexcept override
    {
        return &fields_;
    }

    char const* getPluginName() const noexcept override
    {
        return kName;
    }

    char const* getPluginVersion() const noexcept override
    {
        return kVersion;
    }

    char const* getPluginNamespace() const noexcept override
    {
        return kNamespace;
    }

private:
    PluginFieldCollection fields_{0, nullptr};
};

} // namespace

// What IPluginRegistry::loadLibrary looks for.
extern "C" void setLoggerFinder(ILoggerFinder*) {}

extern "C" IPluginCreatorInterface* const* getCreators(int32_t& count)
{
    static BudgetSelectCreator creator;
    static IPluginCreatorInterface* const creators[] = {&creator};
    count = 1;
    return creators;
}
