"""What engines compute in, by JSON of each era: layers that others have published, cut to the keys that are read.

Sources: [8.2] pytorch/pytorch#66683; [8.x] NVIDIA/TensorRT#2418 and #3876; [9.2] NVIDIA/TensorRT#3665; [10.2]
NVIDIA/TensorRT#4020; [10.10] NVIDIA/TensorRT#4397, given there as text; [11] NVIDIA's page "Migrating IEngineInspector
Usage from TensorRT 10.x to 11.x" for the inputs and outputs, and NVIDIA's TensorRT cookbook for the apart keys
"Format" and "Datatype". Names of a separate softmax: NVIDIA/TensorRT#3620's profile.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from engine_layers import CONV_8, CONV_INT8, ELEVEN, FOREIGN, GEMM_9, MATMUL_8, MHA, NORM, QKV, REFORMAT, SOFTMAX, text
from kernel_lists import GRAPHS, PRECISIONS, kernel_list

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.runtime.tensorrt.inspector import precision_of, read_layers


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


def test_a_kernel_s_name_says_it_where_the_inputs_do_not() -> None:
    (found,) = read_layers(
        text([{"Name": "v", "LayerType": "fusion", "TacticName": "sm80_xmma_gemm_i8f32_i8i32_f32_x"}])
    )
    assert (found.computes, found.precision) == (True, "int8")


def test_attention_is_known_by_its_kernel_not_by_the_names_of_nodes() -> None:
    qkv, mha, softmax = read_layers(text([QKV, MHA, SOFTMAX]))
    assert [layer.fused_attention for layer in (qkv, mha, softmax)] == [False, True, False]  # QKV is full of "mha"
    assert [layer.softmax for layer in (qkv, mha, softmax)] == [False, False, True]
    assert not any(layer.softmax for layer in read_layers(text([NORM, REFORMAT, FOREIGN])))


@pytest.mark.parametrize("broken", ["", "not JSON", "[1]", '{"Layers": []}', '{"Bindings": ["x"]}', "[" * 10**5])
def test_what_is_no_such_json_is_one_line(broken: str) -> None:
    with pytest.raises(InputError, match="precision is unknown"):
        read_layers(broken)
    with pytest.raises(InputError, match="without details"):
        read_layers('{"Layers": ["/blocks.0/norm", "/blocks.0/attn"]}')


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_product_of_a_real_engine_is_judged_or_a_row_that_is_summed(graph: str, precision: str) -> None:
    layers, wiring = kernel_list(graph, precision)
    judged = {node for layer in layers if layer.computes and layer.precision for node in layer.nodes}
    summed = {node for layer in layers if layer.multiplies_and_sums for node in layer.nodes}
    assert len(wiring.products) >= 38  # one convolution, six by block, the head
    assert wiring.products - judged <= summed
    assert len(wiring.products - judged) <= 11


@pytest.mark.parametrize(
    ("precision", "layers"),
    [
        ("fp32", {"fp32": 37}),
        ("fp16", {"fp16": 31}),
        ("bf16", {"bf16": 30, "fp32": 1}),
        ("int8", {"fp16": 7, "int8": 24}),
    ],
)
def test_matrix_layers_of_a_real_dense_engine(precision: str, layers: dict[str, int]) -> None:
    """In int8, all 24 products with a weight; the rest are six attentions and the convolution."""
    found, _ = kernel_list("dense", precision)
    assert Counter(layer.precision for layer in found if layer.computes) == layers
    kinds = {layer.kind for layer in found if layer.computes}
    assert kinds >= {"gemm", "correlation"} if precision != "bf16" else {"gemm"}
