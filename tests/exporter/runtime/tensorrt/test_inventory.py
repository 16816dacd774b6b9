"""Kernels of real engines: what each does, and in which block or stage."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from engine_layers import FOREIGN, GEMM_9, MHA, NORM, QKV, REFORMAT, SOFTMAX, text
from kernel_lists import GRAPHS, PRECISIONS, kernel_list

from vitrim.exporter.core.wiring import Wiring
from vitrim.exporter.runtime.tensorrt.inspector import read_layers
from vitrim.exporter.runtime.tensorrt.inventory import Kernel, beyond, by_part, inventory


def kernels(graph: str, precision: str) -> tuple[Kernel, ...]:
    return inventory(*kernel_list(graph, precision))


@pytest.mark.parametrize(
    ("graph", "precision", "total", "fused", "pads", "softmaxes"),
    [
        ("dense", "fp32", 108, 0, 18, 6),
        ("dense", "fp16", 66, 6, 0, 0),
        ("dense", "int8", 78, 6, 0, 0),
        ("evit", "fp32", 110, 0, 14, 9),
        ("evit", "fp16", 76, 6, 0, 3),
        ("ats", "fp16", 88, 6, 0, 3),
        ("tofu", "fp16", 93, 6, 3, 0),
        ("ppt", "fp16", 103, 6, 2, 3),
        ("tome", "int8", 119, 6, 3, 0),
        ("frugal", "fp16", 117, 6, 4, 4),
        ("zero_tprune", "fp16", 122, 3, 10, 3),
    ],
)
def test_what_kernels_do(graph: str, precision: str, total: int, fused: int, pads: int, softmaxes: int) -> None:
    found = kernels(graph, precision)
    does = Counter(kernel.does for kernel in found)
    assert (len(found), does["attention"], does["pad"], does["softmax"]) == (total, fused, pads, softmaxes)
    assert does["other"] == 0


def test_a_dense_engine_s_kernels_by_block() -> None:
    found = by_part(kernels("dense", "fp16"))
    assert list(found) == ["embedding", *(f"block {number}" for number in range(6)), "head"]
    for number in range(6):
        does = found[f"block {number}"]
        assert (does["product"], does["attention"]) == (4, 1)  # qkv, projection and the MLP's two
    assert found["embedding"]["product"] == 1
    assert found["head"]["row product"] == 1


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_kernel_has_its_place_and_stages_rank(graph: str, precision: str) -> None:
    found = kernels(graph, precision)
    parts = by_part(found)
    assert None not in parts
    ranking = {kernel.part for kernel in found if kernel.does == "top-k"}
    if graph in ("dense", "floor"):
        assert ranking == set()
    else:
        assert len(ranking) >= 3
        assert all(str(part).startswith("stage ") for part in ranking)
    assert {part for part in parts if str(part).startswith("block ")} == {f"block {number}" for number in range(6)}


def test_kernels_beyond_another_engine_s_stand_where_the_stages_are() -> None:
    found, floor = kernels("evit", "fp16"), kernels("floor", "fp16")
    assert beyond(found, floor) == {"block 1": 4, "block 3": 4, "block 4": 3}
    assert sum(beyond(found, floor).values()) == len(found) - len(floor)
    assert beyond(floor, floor) == {}


def test_a_kernel_without_nodes_belongs_where_its_values_come_from_or_go() -> None:
    found = {kernel.name: kernel for kernel in kernels("dense", "fp32")}
    first = found["__myl_Move_myl0_0"]
    assert (first.nodes, first.part, first.does) == (("__myl_Move_myl0_0",), "embedding", "copy")


def test_kernels_of_other_versions_are_known_by_their_names() -> None:
    layers = read_layers(text([REFORMAT, QKV, MHA, NORM, GEMM_9, SOFTMAX, FOREIGN]))
    found = inventory(layers, Wiring())
    assert [kernel.does for kernel in found] == [
        "copy", "product", "attention", "elementwise", "product", "softmax", "other",
    ]  # fmt: skip
    assert {kernel.part for kernel in found} == {None}
    assert [Kernel.from_json(json.loads(json.dumps(kernel.to_json())), "x") for kernel in found] == list(found)
