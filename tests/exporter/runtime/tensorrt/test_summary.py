"""What an engine computes in: wrong layers, attentions that are not fused, and why."""

from __future__ import annotations

import json
from typing import Any

import pytest
from engine_layers import CONV_8, CONV_INT8, ELEVEN, FOREIGN, GEMM_9, MATMUL_8, MHA, NORM, QKV, REFORMAT, SOFTMAX, text
from kernel_lists import kernel_list

from vitrim.exporter.core.wiring import Probabilities, Wiring
from vitrim.exporter.runtime.tensorrt.inspector import read_layers
from vitrim.exporter.runtime.tensorrt.summary import (
    Attention,
    LayerSummary,
    Wanted,
    attention,
    summarize,
    unreadable,
    why_not_fused,
    wrong_layers,
)


def test_fused_attention_needs_no_reason() -> None:
    found = attention(read_layers(text([QKV, MHA, NORM])), Wanted("fp16"))
    assert found == Attention(fused=1, not_fused=0, names=(), reason=None)


def test_attention_that_is_not_fused_is_given_a_reason_by_its_shapes() -> None:
    layers = read_layers(text([GEMM_9, SOFTMAX]))
    found = attention(layers, Wanted("fp16", version=(9, 2), capability=(8, 0)))
    assert (found.fused, found.not_fused, found.names) == (0, 1, ("__myl_bb1_3_MaxSubExpSumDivMul",))
    assert str(found.reason).startswith("no rule of NVIDIA's is broken")
    assert "Orin" in str(attention(layers, Wanted("fp16", version=(8, 6), capability=(8, 7))).reason)
    odd = json.loads(json.dumps(GEMM_9).replace("64", "60"))
    reason = attention(read_layers(text([odd, SOFTMAX])), Wanted("fp16", version=(10, 3))).reason
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
        (("fp16", 197, 64, (11, 0), None, ("a",)), "read by a as well, so they must be written"),
        (("fp16", 197, 64, (11, 0), None, ("a", "b", "c")), "read by a and 2 more as well"),
        (("fp32", 197, 64, (11, 0), None, ("a",)), "float32 is never fused"),
    ],
)
def test_rules_of_fusion(arguments: Any, reason: str) -> None:
    assert reason in why_not_fused(*arguments)


def test_an_engine_that_is_as_asked() -> None:
    found = summarize(read_layers(text([REFORMAT, QKV, MHA, NORM])), Wanted("fp16"))
    assert (found.layers, found.precisions, found.passed, found.wrong) == (4, {"fp16": 2}, True, ())
    assert found.verdict == "all 2 matrix layers run in fp16 or as they were pinned"
    assert summarize(read_layers(text([ELEVEN], eleven=True)), Wanted("fp16")).precisions == {"fp16": 1}


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_an_engine_in_another_precision_names_layers_and_share(asked: str) -> None:
    found = summarize(read_layers(text([QKV, MHA, NORM])), Wanted(asked))
    assert (found.passed, found.wrong_share, len(found.wrong)) == (False, 1.0, 2)
    assert found.verdict.startswith(f"2 of 2 matrix layers do not run in {asked} (/encoder/layers_2/mha")


def widened(layer: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(layer).replace("Half", "Float").replace("f16f16", "f32f32"))


def test_pinned_layers_may_be_float32() -> None:
    layers = read_layers(text([widened(QKV), MHA]))
    pinned = frozenset({"/encoder/layers.2/mha/attn/mha_prob/key/MatMul"})
    assert [layer.kind for layer in wrong_layers(layers, Wanted("fp16"))] == ["gemm"]
    assert wrong_layers(layers, Wanted("fp16", pinned=pinned)) == []


def test_a_weakly_typed_builder_may_choose_for_a_few_layers() -> None:
    layers = read_layers(text([MATMUL_8] * 9 + [CONV_8] * 3 + [widened(GEMM_9)]))
    assert summarize(layers, Wanted("fp16", strong=False)).passed  # 1 of 13
    assert not summarize(layers, Wanted("fp16", strong=True)).passed
    many = read_layers(text([MATMUL_8, widened(GEMM_9)]))
    assert not summarize(many, Wanted("fp16", strong=False)).passed


def test_the_patch_embedding_is_not_all_that_there_is_where_one_part_holds_the_blocks() -> None:
    layers = read_layers(text([widened(GEMM_9), FOREIGN]))
    many = Wiring(products=frozenset(f"product {number}" for number in range(74)))
    found = summarize(layers, Wanted("fp16", strong=False, wiring=many))
    assert (found.passed, found.wrong_share, len(found.wrong)) == (True, round(1 / 74, 4), 1)
    assert found.verdict.endswith("; 1 compiled parts cannot be seen into")
    assert not summarize(layers, Wanted("fp16", strong=True, wiring=many)).passed
    assert not summarize(layers, Wanted("fp16", strong=False)).passed


def test_int8_is_asked_only_where_values_are_dequantized() -> None:
    layers = read_layers(text([CONV_INT8, QKV, widened(GEMM_9)]))
    wanted = Wanted("int8", quantized=frozenset({"resnetv15_conv0_fwd"}))
    assert [layer.name for layer in wrong_layers(layers, wanted)] == ["__mye6723_unroll0"]  # float32 in an int8 graph
    more = Wanted("int8", quantized=frozenset({"/encoder/layers.2/mha/attn/mha_prob/key/MatMul"}))
    assert [layer.kind for layer in wrong_layers(layers, more)] == ["gemm", "gemm"]


def test_what_cannot_be_seen_is_said_and_not_judged() -> None:
    found = summarize(read_layers(text([FOREIGN])), Wanted("fp16", strong=False, version=(8, 6)))
    assert (found.opaque, found.passed, found.precisions) == (1, True, {})
    assert "no matrix layer can be seen (1 compiled parts, 0 on a DLA): not checked" in found.verdict
    assert (
        "1 compiled parts cannot be seen into"
        in summarize(read_layers(text([FOREIGN, CONV_8])), Wanted("fp16")).verdict
    )
    dla = {**FOREIGN, "Name": "{ForeignNode[/model.0/conv/Conv.../model.10/Conv]}", "LayerType": "DLA"}
    found = summarize(read_layers(text([dla])), Wanted("fp16"))
    assert (found.dla, found.opaque) == (1, 0)


def test_an_engine_that_cannot_be_read_did_not_pass() -> None:
    found = unreadable("the engine was built without details of its layers")
    assert (found.passed, found.layers, found.verdict) == (
        False,
        0,
        "the engine was built without details of its layers",
    )
    assert LayerSummary.from_json(json.loads(json.dumps(found.to_json())), "x") == found


def test_an_attention_whose_probabilities_are_read_says_by_whom_block_by_block() -> None:
    layers, wiring = kernel_list("zero_tprune", "fp16")
    found = attention(layers, Wanted("fp16", wiring=wiring))
    assert (found.fused, found.not_fused, found.scores) == (3, 3, 0)
    assert [one.part for one in found.unfused] == ["block 1", "block 3", "block 4"]
    first, _, last = (one.reason for one in found.unfused)
    assert first == "its probabilities are read by node_matmul_2 as well, so they must be written"
    assert "node_matmul_14 and 1 more" in last
    assert "no rule" in str(attention(layers, Wanted("fp16")).reason)  # where nothing is known of the network


@pytest.mark.parametrize(
    ("graph", "precision", "fused", "apart", "scores"),
    [("evit", "fp16", 6, 0, 3), ("evit", "fp32", 0, 6, 3), ("frugal", "int8", 6, 0, 4), ("tome", "bf16", 6, 0, 0)],
)
def test_a_softmax_that_weighs_no_values_is_no_attention(
    graph: str, precision: str, fused: int, apart: int, scores: int
) -> None:
    layers, wiring = kernel_list(graph, precision)
    found = attention(layers, Wanted(precision, wiring=wiring))
    assert (found.fused, found.not_fused, found.scores) == (fused, apart, scores)


def test_a_softmax_that_is_written_out_is_no_attention() -> None:
    """A kernel alike, none of whose nodes is a softmax of the graph; where nothing is known of a graph, it is one."""
    written = {**SOFTMAX, "Metadata": "[ONNX Layer: best][ONNX Layer: exponentials]"}
    wiring = Wiring({"exponentials": "stage 3"}, frozenset(), {"softmax": Probabilities("values", ())})
    for known, apart, scores in ((wiring, 0, 1), (Wiring(), 1, 0)):
        found = attention(read_layers(text([GEMM_9, written])), Wanted("fp16", wiring=known))
        assert (found.not_fused, found.scores) == (apart, scores)


def test_products_that_are_no_matrix_layer_are_told() -> None:
    layers, wiring = kernel_list("floor", "fp16")
    found = summarize(layers, Wanted("fp16", wiring=wiring))
    assert (found.products, len(found.summed), found.passed) == (38, 3, True)
    assert found.verdict == (
        "all 29 matrix layers run in fp16 or as they were pinned; 3 of 38 products are in none of them (single rows "
        "are multiplied and summed)"
    )
    assert LayerSummary.from_json(json.loads(json.dumps(found.to_json())), "x") == found


def test_what_older_identities_say_is_read() -> None:
    found = summarize(read_layers(text([QKV, MHA])), Wanted("fp16")).to_json()
    assert {"products", "summed"}.isdisjoint(found)
    assert {"unfused", "scores"}.isdisjoint(found["attention"])
    assert LayerSummary.from_json(found, "x").attention.scores == 0
