"""Operators that TensorRTs, by version, and OpenVINO lack, and element types that some refuse.

From onnx-tensorrt's docs/operators.md (of TensorRT 8.4 and 10.15) and its docs/Changelog.md, but for what `RTX` and
`OPENVINO` stand in the name of: that was asked of TensorRT for RTX 1.7 (benchmarks/results/operators.md) and of
OpenVINO 2026.4 (benchmarks/results/operators_openvino.md) themselves.
"""

from __future__ import annotations

# The first five are onnxruntime's way to quantize, for which TensorRT wants QuantizeLinear and DequantizeLinear.
INTEGER_OPERATORS = frozenset({"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"})
# In no version: operators.md says so of both, and TensorRT for RTX of every one.
NOWHERE = INTEGER_OPERATORS | {
    "AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad",
    "Col2Im", "Compress", "ConcatFromSequence", "DFT", "Det", "ImageDecoder", "MaxRoiPool", "MaxUnpool",
    "MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement",
    "OptionalHasElement", "RegexFullMatch", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase",
    "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat",
    "StringNormalizer", "StringSplit", "TfIdfVectorizer", "Unique",
}  # fmt: skip
_SINCE_11 = frozenset({"Swish"})
_SINCE_10_15 = frozenset({"RMSNormalization", "RotaryEmbedding"})
_SINCE_10_14 = frozenset({"Attention"})
_SINCE_10_4 = frozenset({"BlackmanWindow", "HammingWindow", "HannWindow", "STFT"})  # STFT since 10.5
_SINCE_9 = frozenset({"DeformConv", "Gelu", "Hardmax"})  # by 10.1
_SINCE_8_6 = frozenset({"GroupNormalization", "IsInf", "LayerNormalization"})
LACKS_10_16 = NOWHERE | _SINCE_11
LACKS_10_13 = LACKS_10_16 | _SINCE_10_15 | _SINCE_10_14
LACKS_10_3 = LACKS_10_13 | _SINCE_10_4
LACKS_8_6 = LACKS_10_3 | _SINCE_9
LACKS_8_5 = LACKS_8_6 | _SINCE_8_6

# Plugins that TensorRT has and TensorRT for RTX comes without; then operators of the newest opsets.
LACKS_RTX = NOWHERE | {
    "DeformConv", "NonMaxSuppression", "NonZero", "RoiAlign",
    "BitCast", "CausalConvWithState", "CumProd", "FlexAttention", "LinearAttention",
}  # fmt: skip

_NO_INTEGERS = {
    "Einsum", "GridSample", "PRelu", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "Resize", "TensorScatter",
    "Upsample",
}  # fmt: skip
_NO_BFLOAT16 = {
    "Celu", "ConvTranspose", "GRU", "GlobalLpPool", "HardSwish", "LpNormalization", "LpPool",
    "MeanVarianceNormalization", "Mish", "RandomNormalLike", "Range",
}  # fmt: skip
_NO_BOOL = {
    "DepthToSpace", "GridSample", "ReduceMax", "ReduceMin", "Resize", "SpaceToDepth", "TensorScatter", "Upsample",
}  # fmt: skip
REFUSES_RTX = (
    ("FLOAT", frozenset({"Attention"})),  # of three dimensions and without a mask it is built, too; no other
    ("DOUBLE", frozenset({"Attention"})),
    ("FLOAT16", frozenset({"Celu", "MeanVarianceNormalization", "Range"})),
    ("BFLOAT16", frozenset(_NO_BFLOAT16)),
    ("INT8", frozenset({"Clip", "Einsum", "Mod", "TensorScatter"})),
    ("INT32", frozenset(_NO_INTEGERS | {"Relu"})),
    ("INT64", frozenset(_NO_INTEGERS)),
    ("BOOL", frozenset(_NO_BOOL)),
)

# OpenVINO's reader has no rule for them. Of sequences it takes those that it can dissolve.
LACKS_OPENVINO = frozenset({
    "DeformConv", "Det", "ImageDecoder", "MaxUnpool", "MelWeightMatrix", "Optional", "OptionalGetElement",
    "OptionalHasElement", "RegexFullMatch", "SequenceAt", "SequenceEmpty", "SequenceErase", "SequenceInsert",
    "SequenceMap", "SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit", "TensorScatter",
    "TfIdfVectorizer",
})  # fmt: skip
_NO_HALF = {"AffineGrid", "Bernoulli", "Celu"}  # their rules hold constants in float32
REFUSES_OPENVINO = (
    ("FLOAT16", frozenset(_NO_HALF)),
    ("BFLOAT16", frozenset(_NO_HALF | {"MaxRoiPool"})),
    ("INT8", frozenset({"RandomNormalLike"})),
    ("UINT8", frozenset({"RandomNormalLike"})),
    ("BOOL", frozenset({"RandomNormalLike", "Resize", "Upsample"})),
    ("STRING", frozenset({"Equal"})),
)
