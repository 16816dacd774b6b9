"""Targets: the table, its names and aliases, and that it says what the code that builds engines does."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.operators import INTEGER_OPERATORS
from vitrim.exporter.core.targets import ALIASES, PRECISIONS, RUNTIMES, TARGETS, get_target, precisions_of
from vitrim.exporter.runtime.tensorrt.family import family_of
from vitrim.exporter.runtime.tensorrt.versions import typing_for

TENSORRT = [target for target in TARGETS.values() if target.tensorrt is not None]


def test_aliases_and_names() -> None:
    assert set(TARGETS) == {
        "ort-cpu", "ort-cuda", "ort-trt", "openvino", "openvino-gpu", "openvino-npu", "trt-8.5", "trt-8.6", "trt-10.3",
        "trt-10.13", "trt-10.16", "trt-11", "trt-rtx",
    }  # fmt: skip
    assert {name: get_target(name).tensorrt for name in ALIASES} == {
        "jetpack-5": (8, 5),
        "jetpack-6.0": (8, 6),
        "jetpack-6": (10, 3),
        "jetpack-7": (10, 13),
        "jetpack-7.2": (10, 16),
        "trt-10": (10, 13),
    }
    assert {alias for target in TARGETS.values() for alias in target.aliases} == set(ALIASES)


@pytest.mark.parametrize(
    ("name", "opset", "lacks", "has"),
    [
        ("ort-cpu", 23, set(), {"LayerNormalization", "Gelu", "Attention", "DynamicQuantizeLinear", "MatMulInteger"}),
        ("ort-trt", 22, {"Attention", "RMSNormalization"}, {"LayerNormalization", "Gelu"}),
        ("trt-8.5", 17, {"LayerNormalization", "Gelu", "Attention", "RMSNormalization"}, {"Erf", "TopK", "Trilu"}),
        ("trt-8.6", 17, {"Gelu", "Attention", "Hardmax"}, {"LayerNormalization"}),
        ("trt-10.3", 20, {"Attention", "STFT"}, {"LayerNormalization", "Gelu"}),
        ("trt-10.13", 22, {"Attention", "RMSNormalization", "RotaryEmbedding"}, {"LayerNormalization", "Gelu"}),
        ("trt-10.16", 24, {"Swish"}, {"Attention", "RMSNormalization", "RotaryEmbedding"}),
        ("trt-11", 25, set(), {"Attention", "RMSNormalization", "RotaryEmbedding", "Swish", "NonZero", "RoiAlign"}),
        ("trt-rtx", 27, {"NonZero", "RoiAlign", "LinearAttention"}, {"Attention", "RMSNormalization", "Swish", "Gelu"}),
    ],
)
def test_opset_and_missing_operators(name: str, opset: int, lacks: set[str], has: set[str]) -> None:
    target = get_target(name)
    assert target.opset == opset
    assert target.lacks >= lacks
    assert target.lacks.isdisjoint(has)
    assert (target.lacks >= INTEGER_OPERATORS) == (target.runtime == "tensorrt" or name == "ort-trt")


def test_what_a_version_lacks_the_older_ones_lack_too() -> None:
    for older, newer in pairwise(target for target in TENSORRT if target.rtx is None):
        assert older.tensorrt is not None
        assert newer.tensorrt is not None
        assert older.tensorrt < newer.tensorrt
        assert older.opset <= newer.opset
        assert older.lacks >= newer.lacks
        assert older.types <= newer.types


def test_every_tensorrt_knows_its_scatters_and_its_limit() -> None:
    for target in TARGETS.values():
        if target.runtime == "tensorrt":
            assert {op for op, _ in target.wrong} == {"ScatterElements", "ScatterND"}
            assert target.largest_k == 3840
            assert target.silent == target.name.startswith("trt-8")
            assert target.int64 != target.name.startswith("trt-8")
            assert target.symmetric
            assert not target.providers
        elif target.runtime == "onnxruntime":
            assert target.providers[-1] == "CPUExecutionProvider"
            assert target.device is None
        else:
            assert not target.providers
            assert target.device == (target.name.partition("-")[2].upper() or "CPU")


def test_precisions_are_a_subset_in_order() -> None:
    assert {target.name: target.precisions for target in TARGETS.values()} == {
        "ort-cpu": ("fp32", "int8"),
        "ort-cuda": ("fp32", "fp16", "int8"),
        "ort-trt": ("fp32", "fp16", "int8"),
        "openvino": PRECISIONS,
        "openvino-gpu": ("fp32", "fp16", "int8"),
        "openvino-npu": ("fp32", "fp16", "int8"),
        "trt-8.5": ("fp32", "fp16", "int8"),
        "trt-8.6": ("fp32", "fp16", "int8"),
        "trt-10.3": PRECISIONS,
        "trt-10.13": PRECISIONS,
        "trt-10.16": PRECISIONS,
        "trt-11": PRECISIONS,
        "trt-rtx": PRECISIONS,
    }
    for target in TARGETS.values():
        assert ("BFLOAT16" in target.types) == ("bf16" in target.precisions)


@pytest.mark.parametrize(
    ("capability", "precisions"),
    [
        ((5, 2), ("fp32",)),
        ((5, 3), ("fp32", "fp16")),  # Jetson Nano
        ((6, 1), ("fp32", "int8")),
        ((7, 2), ("fp32", "fp16", "int8")),  # Xavier
        ((7, 5), ("fp32", "fp16", "int8")),
        ((8, 0), PRECISIONS),
        ((8, 7), PRECISIONS),  # Orin: no fp8
        ((8, 9), (*PRECISIONS, "fp8")),
        ((11, 0), (*PRECISIONS, "fp8")),  # Thor
    ],
)
def test_precisions_of_a_compute_capability(capability: tuple[int, int], precisions: tuple[str, ...]) -> None:
    assert precisions_of(capability) == precisions


def test_a_target_on_a_device_has_what_both_have() -> None:
    assert get_target("jetpack-5").precisions_on((8, 7)) == ("fp32", "fp16", "int8")  # TensorRT 8 has no bf16
    assert get_target("trt-11").precisions_on((7, 5)) == ("fp32", "fp16", "int8")  # nor has Turing
    assert get_target("jetpack-6").precisions_on((8, 7)) == PRECISIONS


@pytest.mark.parametrize("target", TENSORRT, ids=lambda target: target.name)
def test_typing_is_what_engines_are_built_with(target: object) -> None:
    version, family = target.rtx or target.tensorrt, family_of(target)
    fp32, fp16 = (typing_for(version, precision, family).strong for precision in ("fp32", "fp16"))
    assert {"weak": (False, False), "either": (False, True), "strong": (True, True)}[target.typing] == (fp32, fp16)


def test_the_table_is_plain_data_and_every_fault_has_a_link() -> None:
    rows = {target.name: target.to_dict() for target in TARGETS.values()}
    assert json.loads(json.dumps(rows)) == rows
    assert rows["trt-10.3"]["jetsons"]["Orin"] == {"capability": "8.7", "precisions": list(PRECISIONS)}
    assert all(fault["link"].startswith("https://") for row in rows.values() for fault in row["faults"])


@pytest.mark.parametrize(
    ("typo", "meant"), [("trt-8.55", "trt-8.5"), ("jetpack6", "jetpack-6"), ("ort-cdua", "ort-cuda")]
)
def test_a_typo_names_the_close_match_and_all_names(typo: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"did you mean {meant}") as caught:
        get_target(typo)
    assert all(name in str(caught.value) for name in (*TARGETS, *ALIASES))


def test_a_tensorrt_target_counts_the_versions_of_one_family() -> None:
    for target in TARGETS.values():
        counted = [version for version in (target.tensorrt, target.rtx) if version is not None]
        assert len(counted) == (target.runtime == "tensorrt")
    rtx = get_target("trt-rtx")
    assert (rtx.rtx, rtx.jetsons, rtx.typing) == ((1, 7), (), "strong")
    assert (rtx.to_dict()["rtx"], rtx.to_dict()["tensorrt"]) == ("1.7", None)


def test_openvino_has_no_engines_and_the_processor_is_known() -> None:
    assert {name for name, target in TARGETS.items() if target.no_engine} == {
        "openvino",
        "openvino-gpu",
        "openvino-npu",
    }
    assert {name for name, target in TARGETS.items() if target.is_cpu} == {"ort-cpu", "openvino"}
    assert {target.runtime for target in TARGETS.values()} == set(RUNTIMES)


def test_stages_compare_where_the_compiler_is_new() -> None:
    assert [name for name, target in TARGETS.items() if target.compares] == [
        "trt-10.13",
        "trt-10.16",
        "trt-11",
        "trt-rtx",
    ]
