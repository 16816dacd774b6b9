"""Names in a bundle: one file a kind, and kinds that are plain names as well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vitrim.exporter.core import layout
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.layout import Kind, Sized


def test_a_kind_is_its_name() -> None:
    assert {"dense": 1}[Kind.DENSE] == 1
    assert json.loads(json.dumps({Kind.FP16: Kind.FLOOR})) == {"fp16": "floor"}
    assert f"the {Kind.PRUNED} graph, {Kind.FP32!s:>5}" == "the pruned graph,  fp32"
    assert Kind("floor") is Kind.FLOOR


def test_files_are_those_that_bundles_have_always_had() -> None:
    assert {str(kind): kind.filename for kind in Kind} == {
        "dense": "dense.onnx",
        "pruned": "model.onnx",
        "proof": "proof.onnx",
        "floor": "floor.onnx",
        "fp32": "model.fp32.onnx",
        "fp16": "model.fp16.onnx",
    }
    assert {*layout.TRACED, *layout.WIDER, Kind.PROOF} == set(Kind)
    assert layout.ENGINE_IDENTITY == "model.engine.json"
    named = {value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)}
    assert len(named) == 20


def test_what_a_stage_decided_is_told_by_the_name() -> None:
    assert all(map(layout.is_decision, ("kept_0", "merged_11", "kept_9999")))
    assert not any(map(layout.is_decision, ("logits", "kept_", "gap_3", "kept_3_fp16", "unkept_3", "kept_10000")))


def test_names_that_are_vitrim_s_own() -> None:
    weights = f"weights-{'0' * 16}.data"
    for name in ("model.onnx", "model.fp16.onnx.data", weights, "manifest.json", "README.md", "run_on_device.py"):
        assert layout.is_own_name(name)
    for name in ("photo.jpg", "deep/model.onnx", "weights-0.data", "Model.onnx", "", "model.onnx.bak", "budget.json\n"):
        assert not layout.is_own_name(name)


def test_a_further_size_has_files_of_its_own_and_shares_the_others() -> None:
    own, further = Sized(Path("out")), Sized(Path("out"), "192x256")
    for name, sized in (
        ("model.onnx", "model.192x256.onnx"),
        ("model.fp16.onnx", "model.192x256.fp16.onnx"),
        ("model.engine.json", "model.192x256.engine.json"),
        ("golden.npz", "golden.192x256.npz"),
        ("float_nodes.json", "float_nodes.192x256.json"),
    ):
        assert own / name == Path("out", name)
        assert further / name == Path("out", sized)
        assert layout.by_size(sized, "192x256") == name
        assert layout.by_size(sized, "256x192") is None
        assert layout.is_own_name(sized)
    assert further / layout.ENGINE_IDENTITY == Path(f"{further / layout.ENGINE}.json")
    assert further / "manifest.json" == Path("out/manifest.json")
    for name in ("manifest.192x256.json", "photo.192x256.jpg", "model.192x0.onnx", "model.192x256.exe"):
        assert not layout.is_own_name(name)
        assert layout.by_size(name, "192x256") is None


def test_a_size_is_written_in_one_way_however_it_is_told() -> None:
    assert layout.size_name("192x256") == layout.size_name((192, 256)) == layout.size_name([192, 256]) == "192x256"
    assert layout.size_name(288) == layout.size_name("288") == layout.size_name([288, 288]) == "288x288"
    for wrong in ("0", "192X256", "192x", "-1", "a", "", (1, 2, 3), "192x256x3", "../x1", True, 1000000):
        with pytest.raises(InputError, match=r"is no image size; write height and width, such as 192x256$"):
            layout.size_name(wrong)
