"""Names in a bundle: one file a kind, and kinds that are plain names as well."""

from __future__ import annotations

import json

from vitrim.exporter.core import layout
from vitrim.exporter.core.layout import Kind


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
