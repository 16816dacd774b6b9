"""Targets: the table, its names and aliases."""

from __future__ import annotations

import pytest

from vitrim.exporter.errors import InputError
from vitrim.exporter.targets import ALIASES, TARGETS, get_target


def test_aliases_and_names() -> None:
    assert set(TARGETS) == {"ort-cpu", "ort-cuda", "ort-trt", "trt-8.5", "trt-8.6", "trt-10.3", "trt-10", "trt-11"}
    assert {name: get_target(name).tensorrt for name in ALIASES} == {
        "jetpack-5": (8, 5),
        "jetpack-6.0": (8, 6),
        "jetpack-6": (10, 3),
        "jetpack-7": (10, 13),
    }


@pytest.mark.parametrize(
    ("name", "opset", "lacks"),
    [
        ("ort-cpu", 23, set()),
        ("trt-8.5", 17, {"LayerNormalization", "Gelu", "Attention"}),
        ("trt-8.6", 17, {"Gelu", "Attention"}),
        ("trt-10.3", 20, {"Attention"}),
        ("trt-10", 22, {"Attention"}),
        ("trt-11", 25, set()),
    ],
)
def test_opset_and_missing_operators(name: str, opset: int, lacks: set[str]) -> None:
    target = get_target(name)
    assert (target.opset, target.lacks) == (opset, lacks)


def test_every_tensorrt_knows_its_scatters_and_its_limit() -> None:
    for target in TARGETS.values():
        if target.runtime == "tensorrt":
            assert {op for op, _ in target.wrong} == {"ScatterElements", "ScatterND"}
            assert target.largest_k == 3840
            assert target.silent == target.name.startswith("trt-8")
            assert not target.providers
        else:
            assert target.providers[-1] == "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("typo", "meant"), [("trt-8.55", "trt-8.5"), ("jetpack6", "jetpack-6"), ("ort-cdua", "ort-cuda")]
)
def test_a_typo_names_the_close_match_and_all_names(typo: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"did you mean {meant}") as caught:
        get_target(typo)
    assert all(name in str(caught.value) for name in (*TARGETS, *ALIASES))
