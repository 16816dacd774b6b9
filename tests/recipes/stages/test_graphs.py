"""Which graphs a run has ended with: the chosen form of attention, in the precision that was kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.core.targets import TARGETS, get_target
from vitrim.recipes.stages.graphs import EMULATED, final_graphs, float32_graphs, forms_for

DATA = Path(__file__).parents[2] / "data" / "0.1.0"
CHOSEN = {"dense": "fused", "pruned": "decomposed", "floor": "fused"}


class Folders:
    """A view whose stages lie in folders of their names."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, stage: str) -> Path:
        return self.root / stage

    def folder_if_any(self, stage: str) -> Path | None:
        return self.folder(stage) if self.folder(stage).exists() else None


@pytest.fixture
def view(tmp_path: Path) -> Folders:
    (tmp_path / "forms").mkdir()
    forms = {kind: {"form": form} for kind, form in CHOSEN.items()}
    (tmp_path / "forms" / "forms.json").write_text(json.dumps(forms))
    return Folders(tmp_path)


def test_graphs_are_in_the_form_that_was_chosen(view: Folders) -> None:
    found = float32_graphs(view)  # type: ignore[arg-type]
    wanted = {kind: view.root / "passes" / f"{kind}.{form}.onnx" for kind, form in CHOSEN.items()}
    assert found == {**wanted, "proof": wanted["pruned"]}


def test_a_proof_graph_is_in_the_form_of_the_one_that_is_shipped(view: Folders) -> None:
    (view.root / "passes").mkdir()
    proof = view.root / "passes" / "proof.decomposed.onnx"
    proof.write_text("a graph")
    graphs = final_graphs(view)  # type: ignore[arg-type]
    assert graphs.final["proof"] == graphs.held["proof"] == proof
    assert graphs.final["pruned"] == graphs.held["pruned"] == view.root / "passes" / "pruned.decomposed.onnx"
    folder = precise(view, "pruned.onnx", "proof.onnx", f"proof{EMULATED}", f"pruned{EMULATED}")
    graphs = final_graphs(view)  # type: ignore[arg-type]
    assert [graphs.float32["proof"], graphs.final["proof"]] == [proof, folder / "proof.onnx"]
    assert graphs.held == {kind: folder / f"{kind}{EMULATED}" for kind in ("pruned", "proof")}


def test_without_another_precision_they_are_the_final_ones(view: Folders) -> None:
    graphs = final_graphs(view)  # type: ignore[arg-type]
    assert graphs.final == graphs.float32 == float32_graphs(view)  # type: ignore[arg-type]
    assert graphs.held["proof"] == graphs.held["pruned"] == graphs.final["pruned"]
    assert graphs.precision is None


def precise(view: Folders, *names: str) -> Path:
    """A result of the stage `precision` with graphs of these names."""
    folder = view.root / "precision"
    folder.mkdir()
    shutil.copy(DATA / "precision-fp16.json", folder / "precision.json")
    for name in names:
        (folder / name).write_text("a graph")
    return folder


def test_a_precision_that_was_kept_replaces_its_kinds_and_keeps_float32_beside(view: Folders) -> None:
    folder = precise(view, "pruned.onnx", "floor.onnx", f"pruned{EMULATED}")
    graphs = final_graphs(view)  # type: ignore[arg-type]
    assert graphs.final == {
        "dense": view.root / "passes" / "dense.fused.onnx",
        "pruned": folder / "pruned.onnx",
        "proof": folder / "pruned.onnx",
        "floor": folder / "floor.onnx",
        "fp32": view.root / "passes" / "pruned.decomposed.onnx",
    }
    assert graphs.held == dict.fromkeys(("pruned", "proof"), folder / f"pruned{EMULATED}")
    assert graphs.precision is not None
    assert graphs.precision.name == "fp16"


def test_without_a_stand_in_the_graph_itself_is_proven(view: Folders) -> None:
    folder = precise(view, "pruned.onnx")
    assert final_graphs(view).held["proof"] == folder / "pruned.onnx"  # type: ignore[arg-type]


def test_a_precision_that_was_not_kept_leaves_float32(view: Folders) -> None:
    precise(view)
    graphs = final_graphs(view)  # type: ignore[arg-type]
    assert graphs.final == graphs.float32
    assert graphs.held["proof"] == graphs.float32["pruned"]
    assert graphs.precision is not None


@pytest.mark.parametrize(
    ("attention", "forms"),
    [("auto", ("decomposed", "fused")), ("decomposed", ("decomposed",)), ("fused", ("fused",))],
)
def test_onnxruntime_may_run_both_forms(attention: str, forms: tuple[str, ...]) -> None:
    assert forms_for(get_target("ort-cpu"), attention) == forms


@pytest.mark.parametrize("name", [name for name in TARGETS if name.startswith("trt")])
def test_tensorrt_fuses_by_itself(name: str) -> None:
    target = get_target(name)
    assert forms_for(target, "auto") == forms_for(target, "decomposed") == ("decomposed",)
    with pytest.raises(UnsupportedError) as caught:
        forms_for(target, "fused")
    assert str(caught.value) == f"export.attention is fused, but {name} gets no Attention operator; use auto"
