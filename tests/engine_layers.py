"""Layers of engines as TensorRT's engine inspector writes them, of several versions; others have published them."""

from __future__ import annotations

import json
from typing import Any


def tensor(name: str, shape: list[int], kind: str, apart: bool = False) -> dict[str, Any]:
    words = (
        {"Format": "Row major linear FP16 format (kLINEAR)", "Datatype": kind} if apart else {"Format/Datatype": kind}
    )
    return {"Name": name, "Location": "Device", "Dimensions": shape, **words}


def text(layers: list[Any], eleven: bool = False) -> str:
    ends: dict[str, Any] = {"Bindings": ["image", "logits"]}
    if eleven:
        ends = {
            "I/O Tensors": [{"Name": "image", "IOMode": "Input", "DataType": "Float", "Dimensions": [1, 3, 224, 224]}]
        }
    return json.dumps({"Layers": layers, **ends})


QKV = {  # [10.10]
    "Name": "/encoder/layers_2/mha/attn/mha_prob/key/MatMul+/encoder/layers_2/mha/attn/mha_prob/query/MatMul_myl0_16",
    "LayerType": "gemm",
    "Inputs": [tensor("__mye56053_20", [1, 40, 256], "Half")],
    "Outputs": [tensor("__mye56053", [3, 40, 256], "Half")],
    "TacticName": "sm80_xmma_gemm_f16f16_f16f16_f16_nn_n_tilesize32x32x64_stage6_warpsize2x2x1_tensor16x8x16",
    "Metadata": "[ONNX Layer: /encoder/layers.2/mha/attn/mha_prob/key/MatMul]"
    "\x1e[ONNX Layer: /encoder/layers.2/mha/attn/mha_prob/query/MatMul]",
}
MHA = {  # [10.10]
    "Name": "_gemm_mha_v2_myl0_17",
    "LayerType": "kgen",
    "Inputs": [
        tensor("__mye56053", [4, 40, 64], "Half"),
        tensor("__mye56053", [4, 64, 40], "Half"),
        tensor("__mye55389_7", [1, 1, 40, 40], "Half"),
    ],
    "Outputs": [tensor("__mye54417", [4, 40, 64], "Half")],
    "TacticName": "_gemm_mha_v2_0x957a2fe283f77dcf35c142c1390a3e6a",
    "Metadata": "[ONNX Layer: /encoder/layers.2/mha/attn/MatMul]"
    "[ONNX Layer: /encoder/layers.2/mha/attn/mha_prob/Softmax]",
}
NORM = {  # [10.10]
    "Name": "__myl_AddCastMeanSubMulMeanAddSqrtDivMulCastMulAdd_myl0_61",
    "LayerType": "kgen",
    "Inputs": [tensor("__myln_k_arg__bb1_65", [1, 40, 256], "Half")],
    "Outputs": [tensor("x", [1, 40, 256], "Half")],
    "TacticName": "__myl_AddCastMeanSubMulMeanAddSqrtDivMulCastMulAdd_0x1",
}
GEMM_9 = {  # [9.2]: alpha and beta are float32 scalars
    "Name": "__mye6723_unroll0",
    "LayerType": "gemm",
    "Inputs": [
        tensor("__mye7021^deref", [46080, 25, 64], "Half"),
        tensor("__mye7027^deref", [46080, 64, 25], "Half"),
        tensor("__mye6649__new_fc___mye6647_alpha", [1], "Float"),
        tensor("__mye6650__new_fc___mye6647_beta", [1], "Float"),
    ],
    "Outputs": [tensor("scores", [46080, 25, 25], "Half")],
    "TacticName": "",
    "Metadata": "__mye6723_unroll0",
}
SOFTMAX = {
    "Name": "__myl_bb1_3_MaxSubExpSumDivMul",
    "LayerType": "kgen",
    "Inputs": [tensor("scores", [9216, 5, 25, 25], "Half")],
    "Outputs": [tensor("probabilities", [9216, 5, 25, 25], "Half")],
    "TacticName": "__myl_bb1_3_MaxSubExpSumDivMul",
}
REFORMAT = {  # [10.2]
    "Name": "Reformatting CopyNode for Input Tensor 0 to resnetv15_conv0_fwd + /blocks.0/attn/Softmax",
    "LayerType": "Reformat",
    "Inputs": [tensor("data", [1, 3, 224, 224], "Row major linear FP32")],
    "Outputs": [tensor("reformatted", [1, 3, 224, 224], "Row major Int8 format")],
    "ParameterType": "Reformat",
    "Metadata": "",
}
CONV_INT8 = {  # [10.2]
    "Name": "resnetv15_conv0_fwd + resnetv15_batchnorm0_fwd",
    "LayerType": "CaskConvActPool",
    "Inputs": [tensor("reformatted", [1, 3, 224, 224], "Row major Int8 format")],
    "Outputs": [tensor("y", [1, 64, 56, 56], "Thirty-two wide channel vectorized row major Int8 format")],
    "Metadata": "[ONNX Layer: resnetv15_conv0_fwd]",
}
CONV_8 = {  # [8.x]
    "Name": "Conv_6 + Relu_7",
    "LayerType": "CaskConvolution",
    "Inputs": [tensor("input.12", [1, 64, 540, 960], "Channel major FP16 format where channel % 8 == 0")],
    "Outputs": [tensor("y", [1, 64, 540, 960], "Channel major FP16 format where channel % 8 == 0")],
}
MATMUL_8 = {  # [8.2]
    "Name": "matmul_1",
    "LayerType": "MatrixMultiply",
    "Inputs": [
        tensor("x", [10, 2], "Row major linear FP16 format"),
        tensor("y", [2, 4], "Row major linear FP16 format"),
    ],
    "Outputs": [tensor("z", [10, 4], "Row major linear FP16 format")],
}
FOREIGN = {  # what 8.x makes of a transformer: NVIDIA/TensorRT#2576
    "Name": "{ForeignNode[transformer.h.0.attn.bias.../Cast]}",
    "LayerType": "Myelin",
    "Inputs": [tensor("x", [1, 197, 384], "Row major linear FP32")],
    "Outputs": [tensor("y", [1, 197, 384], "Row major linear FP32")],
    "TacticValue": "0x0000000000000000",
}
ELEVEN = {  # [11]
    "Name": "/blocks.0/mlp/fc1/MatMul_myl0_4",
    "LayerType": "gemm",
    "Inputs": [tensor("x", [1, 197, 384], "Half", apart=True)],
    "Outputs": [tensor("y", [1, 197, 1536], "Half", apart=True)],
    "TacticName": "sm90_xmma_gemm_f16f16_f16f32_f32_tn_n_tilesize128x128x64",
    "Metadata": "[ONNX Layer: /blocks.0/mlp/fc1/MatMul]",
}


def quantized(layer: Any, dtype: Any) -> list[Any]:
    """A product that takes dequantized values, its weights transposed on the way, and one that takes none."""
    scale = layer("/q", dtype.FLOAT, kind="QUANTIZE")
    dequantize = layer("/dq", dtype.FLOAT, kind="DEQUANTIZE").fed(scale)
    turned = layer("/turn", dtype.FLOAT, kind="SHUFFLE").fed(dequantize)
    product = layer("/blocks.0/mlp/MatMul", dtype.FLOAT, kind="MATRIX_MULTIPLY").fed(scale, turned)
    plain = layer("/blocks.0/attn/MatMul", dtype.FLOAT, kind="MATRIX_MULTIPLY").fed(product, product)
    return [scale, dequantize, turned, product, plain]
