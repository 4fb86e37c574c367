"""The standard operators that TensorRT's ONNX parser takes, by the version that they came with.

Source: ``docs/operators.md`` of onnx-tensorrt, 10.0 and 10.15, and TensorRT 11.0's changelog for Swish. What the parser
of TensorRT-RTX 1.7 refuses although the list has it was found by building (docs/log.md).
"""

from __future__ import annotations

_OF_10_0 = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast CastLike Ceil Celu
Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DeformConv DepthToSpace DequantizeLinear Div
Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm
GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid
HardSwish Hardmax Identity If InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less
LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mish
Mod Mul Neg NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow QuantizeLinear RNN RandomNormal RandomNormalLike
RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax
ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round Scan
ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth
Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where Xor
"""

TENSORRT_10_0 = frozenset(_OF_10_0.split())

TENSORRT_10_15 = TENSORRT_10_0 | {"Attention", "RMSNormalization", "RotaryEmbedding", "TensorScatter"}

TENSORRT_11_0 = TENSORRT_10_15 | {"Swish"}

TENSORRT_RTX_1_7 = TENSORRT_11_0 - {"NonZero"}
