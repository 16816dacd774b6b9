"""Graphs rewritten for their target: every kind in every form, reported truly, and computing what was traced."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.core.files import sha256
from vitrim.exporter.runtime.runners import OrtRunner, run_all
from vitrim.recipes.schema.sections.outputs import ExportSection, PrecisionSection
from vitrim.recipes.stages import rewrite as stage
from vitrim.recipes.stages.rewrite import Rewrite

FORMS = ("decomposed", "fused")
NAMES = [f"{kind}.{form}" for kind in ("dense", "pruned", "floor") for form in FORMS]
PROOFS = [f"proof.{form}" for form in FORMS]
# The rule of four blocks: two stages by similarity, which hand over sizes, and the last block, which keeps no patch.
DECISIONS = ["kept_1", "kept_2", "kept_3", "merged_1", "merged_2"]


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)


def test_reports_say_what_became_of_every_graph(walked: Any) -> None:
    folder, traced = walked.folders["passes"], walked.folders["trace"]
    reports = json.loads((folder / "passes.json").read_text())
    assert sorted(path.stem for path in folder.glob("*.onnx")) == sorted([*NAMES, *PROOFS])
    assert sorted(reports) == sorted(NAMES)
    for name, report in reports.items():
        assert report["operators_before"] == dict(operators(traced / f"{name.split('.')[0]}.onnx"))
        assert report["operators_after"] == dict(operators(folder / f"{name}.onnx"))
        assert any(entry["count"] for entry in report["passes"])


def test_the_fused_form_alone_has_fused_attention(walked: Any) -> None:
    for name in NAMES:
        counts = operators(walked.folders["passes"] / f"{name}.onnx")
        assert counts["Attention"] == 0 or name.endswith("fused"), name
    dense = operators(walked.folders["passes"] / "dense.fused.onnx")
    assert (dense["Attention"], dense["Softmax"]) == (4, 0)


@pytest.mark.parametrize("name", [*NAMES, *PROOFS])
def test_they_compute_what_was_traced(walked: Any, name: str) -> None:
    images = np.load(walked.folders["reference"] / "images.npy")
    before, after = (
        run_all(OrtRunner(str(path), threads=1), images, 1)
        for path in (
            walked.folders["trace"] / f"{name.split('.')[0].replace('proof', 'pruned')}.onnx",
            walked.folders["passes"] / f"{name}.onnx",
        )
    )
    assert after.keys() == (before.keys() if name in PROOFS else {"logits"})
    np.testing.assert_allclose(after["logits"], before["logits"], atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_the_pruned_graph_is_a_part_of_its_proof(walked: Any, form: str) -> None:
    folder = walked.folders["passes"]
    shipped, proof = (
        onnx.load(folder / f"{kind}.{form}.onnx", load_external_data=False) for kind in ("pruned", "proof")
    )
    nodes = [node.SerializeToString() for node in proof.graph.node]
    assert {node.SerializeToString() for node in shipped.graph.node} < set(nodes)
    told = json.loads((folder / "passes.json").read_text())[f"pruned.{form}"]["passes"][-1]
    assert (told["name"], told["count"]) == ("decision outputs left out", len(DECISIONS))
    assert told["nodes"] == [len(proof.graph.node), len(shipped.graph.node)]


@pytest.mark.slow
def test_where_decisions_are_asked_for_there_is_one_graph(walked: Any, tmp_path: Path) -> None:
    view: Any = SimpleNamespace(
        recipe=SimpleNamespace(
            export=ExportSection(decisions=True, attention="decomposed"), precision=PrecisionSection()
        ),
        folder=walked.folders.__getitem__,
        preprocess=walked.preprocess,
        listener=walked.listener,
    )
    Rewrite.make(view, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == [
        f"{kind}.decomposed.onnx" for kind in ("dense", "floor", "pruned")
    ]
    runner = OrtRunner(tmp_path / "pruned.decomposed.onnx", threads=1)
    assert runner.outputs == ["logits", *DECISIONS]


def test_weights_stay_in_the_traced_file(walked: Any) -> None:
    folder, traced = walked.folders["passes"], walked.folders["trace"]
    (weights,) = traced.glob("weights-*")
    assert sha256(folder / weights.name) == sha256(weights)
    assert (folder / weights.name).stat().st_nlink > 1  # no copy of whoever traced it
    others = [path for path in folder.iterdir() if path.suffix not in (".onnx", ".json") and path.name != weights.name]
    assert sum(path.stat().st_size for path in others) < weights.stat().st_size


def test_a_graph_that_does_not_fit_the_target_is_refused(
    walked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if no pass did anything."""

    def idle(model: Any, target: Any, feeds: Any, **options: Any) -> Any:
        return model, []

    view: Any = SimpleNamespace(
        recipe=SimpleNamespace(export=ExportSection(target="trt-8.5"), precision=PrecisionSection()),
        folder=walked.folders.__getitem__,
        preprocess=walked.preprocess,
        listener=walked.listener,
    )
    monkeypatch.setattr(stage, "rewrite", idle)
    with pytest.raises(UnsupportedError, match=r"the dense graph .*trt-8\.5"):
        Rewrite.make(view, tmp_path)
    assert not (tmp_path / "passes.json").exists()
