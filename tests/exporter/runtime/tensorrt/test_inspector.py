"""What engines compute in, by JSON of each era: layers that others have published, cut to the keys that are read.

Sources: [8.2] pytorch/pytorch#66683; [8.x] NVIDIA/TensorRT#2418 and #3876; [9.2] NVIDIA/TensorRT#3665; [10.2]
NVIDIA/TensorRT#4020; [10.10] NVIDIA/TensorRT#4397, given there as text; [11] NVIDIA's page "Migrating IEngineInspector
Usage from TensorRT 10.x to 11.x" for the inputs and outputs, and NVIDIA's TensorRT cookbook for the apart keys
"Format" and "Datatype". Names of a separate softmax: NVIDIA/TensorRT#3620's profile.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.runtime.tensorrt.inspector import (
    Wanted,
    attention,
    precision_of,
    read_layers,
    summarize,
    why_not_fused,
    wrong_layers,
)


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


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        ("Half", "fp16"),
        ("Row major linear FP16 format", "fp16"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Float", "fp32"),
        ("Row major linear FP32", "fp32"),
        ("BFloat16", "bf16"),
        ("Row major linear BF16", "bf16"),
        ("Int8", "int8"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("FP8", "fp8"),
        ("Int32", None),
        ("Int64", None),
        ("Bool", None),
        ("", None),
    ],
)
def test_words_of_every_era(words: str, precision: str | None) -> None:
    assert precision_of(words) == precision


@pytest.mark.parametrize(
    ("layer", "computes", "precision"),
    [
        (QKV, True, "fp16"),
        (MHA, True, "fp16"),
        (NORM, False, "fp16"),
        (GEMM_9, True, "fp16"),
        (SOFTMAX, False, "fp16"),
        (REFORMAT, False, "fp32"),
        (CONV_INT8, True, "int8"),
        (CONV_8, True, "fp16"),
        (MATMUL_8, True, "fp16"),
        (FOREIGN, False, "fp32"),
        (ELEVEN, True, "fp16"),
    ],
)
def test_layers_of_every_era(layer: dict[str, Any], computes: bool, precision: str) -> None:
    (found,) = read_layers(text([layer], eleven=layer is ELEVEN))
    assert (found.computes, found.precision) == (computes, precision)


def test_a_kernel_s_name_tells_where_the_inputs_do_not() -> None:
    (found,) = read_layers(
        text([{"Name": "v", "LayerType": "fusion", "TacticName": "sm80_xmma_gemm_i8f32_i8i32_f32_x"}])
    )
    assert (found.computes, found.precision) == (True, "int8")


def test_attention_is_known_by_its_kernel_not_by_the_names_of_nodes() -> None:
    qkv, mha, softmax = read_layers(text([QKV, MHA, SOFTMAX]))
    assert [layer.fused_attention for layer in (qkv, mha, softmax)] == [False, True, False]  # QKV is full of "mha"
    assert [layer.softmax for layer in (qkv, mha, softmax)] == [False, False, True]
    assert not any(layer.softmax for layer in read_layers(text([NORM, REFORMAT, FOREIGN])))


def test_fused_attention_needs_no_reason() -> None:
    found = attention(read_layers(text([QKV, MHA, NORM])), Wanted("fp16"))
    assert found == {"fused": 1, "not_fused": 0, "names": [], "reason": None}


def test_attention_that_is_not_fused_is_given_a_reason_by_its_shapes() -> None:
    layers = read_layers(text([GEMM_9, SOFTMAX]))
    found = attention(layers, Wanted("fp16", version=(9, 2), capability=(8, 0)))
    assert (found["fused"], found["not_fused"], found["names"]) == (0, 1, ["__myl_bb1_3_MaxSubExpSumDivMul"])
    assert found["reason"].startswith("no rule of NVIDIA's is broken")
    assert "Orin" in attention(layers, Wanted("fp16", version=(8, 6), capability=(8, 7)))["reason"]
    odd = json.loads(json.dumps(GEMM_9).replace("64", "60"))
    reason = attention(read_layers(text([odd, SOFTMAX])), Wanted("fp16", version=(10, 3)))["reason"]
    assert reason == "fused attention needs heads that are multiples of 8, not 60, before TensorRT 10.14"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("fp16", 197, 64, (8, 5), (8, 7)), "from 8.6 on"),
        (("fp16", 197, 64, (10, 3), (7, 2)), "compute capability 7.5"),
        (("fp32", 197, 64, (10, 3), (8, 7)), "float32 is never fused"),
        (("int8", 197, 48, (10, 3), (8, 7)), "heads of 16, 32 or 64, not 48"),
        (("int8", 577, 64, (10, 3), (8, 7)), "at most 512 tokens, not 577"),
        (("fp16", 577, 512, (10, 3), (8, 7)), "heads of 16 to 256, not 512"),
        (("fp16", 577, 60, (10, 14), (8, 7)), "no rule"),
        (("fp16", None, None, (11, 4), None), "no rule"),
    ],
)
def test_rules_of_fusion(arguments: Any, reason: str) -> None:
    assert reason in why_not_fused(*arguments)


def test_an_engine_that_is_as_asked() -> None:
    found = summarize(read_layers(text([REFORMAT, QKV, MHA, NORM])), Wanted("fp16"))
    assert (found["layers"], found["precisions"], found["passed"], found["wrong"]) == (4, {"fp16": 2}, True, [])
    assert found["verdict"] == "all 2 matrix layers run in fp16 or as they were pinned"
    assert summarize(read_layers(text([ELEVEN], eleven=True)), Wanted("fp16"))["precisions"] == {"fp16": 1}


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_an_engine_in_another_precision_names_layers_and_share(asked: str) -> None:
    found = summarize(read_layers(text([QKV, MHA, NORM])), Wanted(asked))
    assert (found["passed"], found["wrong_share"], len(found["wrong"])) == (False, 1.0, 2)
    assert found["verdict"].startswith(f"2 of 2 matrix layers do not run in {asked} (/encoder/layers_2/mha")


def widened(layer: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(layer).replace("Half", "Float").replace("f16f16", "f32f32"))


def test_pinned_layers_may_be_float32() -> None:
    layers = read_layers(text([widened(QKV), MHA]))
    pinned = frozenset({"/encoder/layers.2/mha/attn/mha_prob/key/MatMul"})
    assert [layer.kind for layer in wrong_layers(layers, Wanted("fp16"))] == ["gemm"]
    assert wrong_layers(layers, Wanted("fp16", pinned=pinned)) == []


def test_a_weakly_typed_builder_may_choose_for_a_few_layers() -> None:
    layers = read_layers(text([MATMUL_8] * 9 + [CONV_8] * 3 + [widened(GEMM_9)]))
    assert summarize(layers, Wanted("fp16", strong=False))["passed"]  # 1 of 13
    assert not summarize(layers, Wanted("fp16", strong=True))["passed"]
    many = read_layers(text([MATMUL_8, widened(GEMM_9)]))
    assert not summarize(many, Wanted("fp16", strong=False))["passed"]


def test_int8_is_asked_only_where_values_are_dequantized() -> None:
    layers = read_layers(text([CONV_INT8, QKV, widened(GEMM_9)]))
    wanted = Wanted("int8", quantized=frozenset({"resnetv15_conv0_fwd"}))
    assert [layer.name for layer in wrong_layers(layers, wanted)] == ["__mye6723_unroll0"]  # float32 in an int8 graph
    more = Wanted("int8", quantized=frozenset({"/encoder/layers.2/mha/attn/mha_prob/key/MatMul"}))
    assert [layer.kind for layer in wrong_layers(layers, more)] == ["gemm", "gemm"]


def test_what_cannot_be_seen_is_said_and_not_judged() -> None:
    found = summarize(read_layers(text([FOREIGN])), Wanted("fp16", strong=False, version=(8, 6)))
    assert (found["opaque"], found["passed"], found["precisions"]) == (1, True, {})
    assert "no matrix layer can be seen (1 compiled parts, 0 on a DLA): not checked" in found["verdict"]
    assert (
        "1 compiled parts cannot be seen into"
        in summarize(read_layers(text([FOREIGN, CONV_8])), Wanted("fp16"))["verdict"]
    )
    dla = {**FOREIGN, "Name": "{ForeignNode[/model.0/conv/Conv.../model.10/Conv]}", "LayerType": "DLA"}
    found = summarize(read_layers(text([dla])), Wanted("fp16"))
    assert (found["dla"], found["opaque"]) == (1, 0)


@pytest.mark.parametrize("broken", ["", "not JSON", "[1]", '{"Layers": []}', '{"Bindings": ["x"]}', "[" * 10**5])
def test_what_is_no_such_json_is_one_line(broken: str) -> None:
    with pytest.raises(InputError, match="cannot be told"):
        read_layers(broken)
    with pytest.raises(InputError, match="without details"):
        read_layers('{"Layers": ["/blocks.0/norm", "/blocks.0/attn"]}')
