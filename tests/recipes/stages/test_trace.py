"""From PyTorch to ONNX: a graph of each kind that computes what its model does, with weights in one file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers import budget_for, random_widths, small_vit

from vitrim.exporter.core.layout import BUDGET
from vitrim.exporter.pruning.budget import write_budget
from vitrim.exporter.pruning.slim import slim
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.exporter.runtime.runners import OrtRunner, run_all
from vitrim.recipes.schema.sections.outputs import ExportSection
from vitrim.recipes.stages.dense import Dense
from vitrim.recipes.stages.kinds import sliced
from vitrim.recipes.stages.trace import Trace


def answers(path: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    runner = OrtRunner(str(path), threads=1)
    return dict(run_all(runner, images, runner.batch))


def external(path: Path) -> set[tuple[str, int, int]]:
    """Where a graph's large weights lie: file, offset, length."""
    entries = [
        {pair.key: pair.value for pair in tensor.external_data}
        for tensor in onnx.load(path, load_external_data=False).graph.initializer
        if tensor.external_data
    ]
    return {(entry["location"], int(entry["offset"]), int(entry["length"])) for entry in entries}


@pytest.fixture(scope="module")
def images(walked: Any) -> np.ndarray:
    found: np.ndarray = np.load(walked.folders["reference"] / "images.npy")
    return found


def test_there_is_a_graph_of_each_kind_and_one_file_of_weights(walked: Any) -> None:
    folder = walked.folders["trace"]
    graphs = {path.stem for path in folder.glob("*.onnx")}
    assert graphs == {"dense", "pruned", "floor"}
    (weights,) = folder.glob("weights-*")
    assert weights.samefile(walked.folders["dense"] / weights.name)
    parts = {name: external(folder / f"{name}.onnx") for name in graphs}
    patches = (weights.name, 0, 4 * 48 * 3 * 16 * 16)  # of the small model, the one weight that is large
    assert parts == {name: {patches} for name in graphs}
    assert weights.stat().st_size == patches[2]  # once, not once a kind


def test_outputs_are_logits_and_the_pruned_one_tells_its_decisions(walked: Any, made: tuple[Path, Any]) -> None:
    *choosing, last = (row.block for row in made[1].budget.stages)  # where no patch stays, none hands over its size
    told = [f"kept_{block}" for block in (*choosing, last)] + [f"merged_{block}" for block in choosing]
    for name, outputs in (("dense", ["logits"]), ("pruned", ["logits", *told]), ("floor", ["logits"])):
        model = onnx.load(walked.folders["trace"] / f"{name}.onnx", load_external_data=False)
        assert [value.name for value in model.graph.output] == outputs
        assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 64, 64]


def test_every_graph_computes_what_its_model_does(walked: Any, made: tuple[Path, Any], images: np.ndarray) -> None:
    model, budget = walked.dense(), made[1].budget
    models = {"dense": model, "pruned": PrunedViT(model, budget), "floor": PrunedViT(model, sliced(budget))}
    found = {}
    for name, source in models.items():
        found[name] = answers(walked.folders["trace"] / f"{name}.onnx", images)["logits"]
        with torch.inference_mode():
            np.testing.assert_allclose(found[name], source(torch.from_numpy(images)).numpy(), atol=1e-5)
    assert np.abs(found["pruned"] - found["floor"]).max() > 1e-3  # they do not decide alike


@pytest.mark.slow
def test_without_a_token_plan_the_narrow_model_stands_beside_the_whole_one(tmp_path: Path, vit: Any) -> None:
    """In the recipe's batch; progress is told a graph at a time."""
    heard: list[tuple[int, int]] = []
    narrow = slim(vit, random_widths(vit))
    view: Any = SimpleNamespace(
        dense=vit,
        model=narrow,
        folder=lambda stage: tmp_path / stage,
        folder_if_any=lambda stage: None,
        recipe=SimpleNamespace(export=ExportSection(batch=3), prunes=False),
        listener=SimpleNamespace(progress=lambda *seen: heard.append(seen)),
    )
    Dense.make(view, tmp_path / "dense")
    Trace.make(view, tmp_path)
    assert {path.stem for path in tmp_path.glob("*.onnx")} == {"dense", "pruned"}
    assert heard == [(1, 1)]
    batch = np.random.default_rng(0).standard_normal((3, 3, 64, 64)).astype(np.float32)
    for name, model in (("dense", vit), ("pruned", narrow)):
        with torch.inference_mode():
            wanted = model(torch.from_numpy(batch)).numpy()
        found = answers(tmp_path / f"{name}.onnx", batch)
        assert set(found) == {"logits"}
        np.testing.assert_allclose(found["logits"], wanted, atol=1e-4)


@pytest.mark.slow
def test_a_graph_for_tensorrt_merges_by_comparing_where_others_sort(tmp_path: Path) -> None:
    """The same decisions and answers; the one TopK that is left lists what has merged."""
    model = small_vit("deit_tiny_patch16_224", depth=2)
    write_budget(budget_for(model, {0: 12}, "tome"), tmp_path / BUDGET)
    image = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)
    found, sorts = {}, {}
    for target in ("ort-cpu", "trt-11"):
        view: Any = SimpleNamespace(
            dense=model,
            model=model,
            folder=lambda stage: tmp_path,
            folder_if_any=lambda stage: tmp_path,
            recipe=SimpleNamespace(export=ExportSection(batch=1, target=target), prunes=True),
            listener=SimpleNamespace(progress=lambda *seen: None),
        )
        if not found:
            Dense.make(view, tmp_path)
        folder = tmp_path / target
        folder.mkdir()
        Trace.make(view, folder)
        found[target] = answers(folder / "pruned.onnx", image)
        graph = onnx.load(folder / "pruned.onnx", load_external_data=False).graph
        sorts[target] = sum(node.op_type in ("TopK", "ArgMax") for node in graph.node)
    assert sorts == {"ort-cpu": 3, "trt-11": 1}
    plain, compared = found["ort-cpu"], found["trt-11"]
    np.testing.assert_allclose(compared["logits"], plain["logits"], atol=1e-5)
    assert compared["kept_0"].tolist() == plain["kept_0"].tolist()
    assert np.sort(compared["merged_0"]).tolist() == np.sort(plain["merged_0"]).tolist()
