"""Slimming through the pipeline: alone, before token pruning, for Swin, from a file of widths, and resumed."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers import SMALL_SWIN, random_widths, small_recipe, small_swin, small_vit, source_for
from neuron_families import SWIN, images_of, small_family

from vitrim import api
from vitrim.calibration.units.cost import count_macs
from vitrim.calibration.units.scores import taylor
from vitrim.exporter.core.errors import InputError, UnsupportedError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.lint.check import lint
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.load import create_model
from vitrim.exporter.pruning.slim import slim
from vitrim.exporter.pruning.whole import WholeModel
from vitrim.exporter.pruning.widths import read_widths, write_widths
from vitrim.exporter.runtime.runners import OrtRunner
from vitrim.recipes.listener import Silence
from vitrim.recipes.schema.sections.slim import SlimSection
from vitrim.recipes.stages import slim as stage
from vitrim.recipes.stages.slim import summary


@pytest.mark.slow
def test_slim_then_tokens_in_one_recipe(tmp_path: Path) -> None:
    recipe = small_recipe(slim={"target": {"flops_ratio": 0.8}}, prune={"target": {"flops_ratio": 0.6}})
    done = api.export(recipe, tmp_path / "out")
    assert done.parity.passed
    rungs = {rung.name: rung for rung in done.parity.rungs}
    assert rungs["torch: narrower = masked"].smallest_atol < 1e-5
    assert rungs["identity: last block for read tokens"].smallest_atol < 1e-5
    assert len(rungs) == 7
    widths, budget = read_widths(tmp_path / "out" / "widths.json"), done.budget
    dense, slimmed = widths.costs["gmacs"]
    assert 0.77 * dense <= slimmed <= 0.8 * dense
    assert budget is not None
    assert budget.gmacs["dense"] == pytest.approx(dense, rel=1e-3)  # the ratio is of the model as it came
    assert 0.5 * dense < budget.total_gmacs <= 0.6 * dense
    sizes = {name: (tmp_path / "out" / f"{name}.onnx").stat().st_size for name in ("model", "dense", "floor")}
    assert sizes["model"] < 0.9 * sizes["dense"]
    assert set(done.bench.distributions) == {"dense", "pruned", "floor"}
    assert api.check(tmp_path / "out").passed
    assert "Slimmed: " in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow
def test_swin_from_checkpoint_to_bundle(tmp_path: Path) -> None:
    recipe = small_recipe(
        model={"name": "swin_tiny_patch4_window7_224", "args": {**SMALL_SWIN, "num_classes": 10}},
        slim={"target": {"parameters_ratio": 0.8}, "multiple": 8},
        prune=None,
    )
    done = api.export(recipe, tmp_path / "out")
    assert done.budget is None
    assert not (tmp_path / "out" / "budget.json").exists()
    assert set(done.bench.distributions) == {"dense", "pruned"}
    assert done.bench.overhead is None
    whole, left = read_widths(tmp_path / "out" / "widths.json").costs["parameters"]
    assert 0.75 * whole < left <= 0.8 * whole
    assert api.check(tmp_path / "out").passed
    assert set(api.bench(tmp_path / "out", runs=5, warmup=0).distributions) == {"dense", "pruned"}
    weights = {
        name: sum(np.prod(t.dims) for t in onnx.load(tmp_path / "out" / f"{name}.onnx").graph.initializer)
        for name in ("model", "dense")
    }
    assert weights["model"] < 0.9 * weights["dense"]


@functools.cache
def slimmed_swin() -> tuple[Any, onnx.ModelProto]:
    """A small Swin of random widths, and its graph as traced."""
    model = slim(small_swin(), random_widths(small_swin(), 1))
    return model, trace(WholeModel(model), 2)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ort-cpu", "trt-8.5", "trt-10.3"])
def test_a_slimmed_swin_fits_every_target(target: str) -> None:
    model, traced = slimmed_swin()
    image = np.random.default_rng(0).standard_normal((2, 3, 56, 56), dtype=np.float32)
    graph, reports = rewrite(traced, get_target(target), {"image": image})
    assert lint(graph, get_target(target)) == []
    assert "Pad" not in {node.op_type for node in graph.graph.node}
    assert next(report for report in reports if report.name == "pads of nothing taken out").count == 5
    with torch.inference_mode():
        expected = model(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(OrtRunner(graph.SerializeToString())(image)["logits"], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "target"), [("swin v2", "trt-8.5"), ("hiera", "ort-cpu")])
def test_models_of_fewer_neurons_fit_their_targets(family: str, target: str) -> None:
    model = slim(small_family(family), random_widths(small_family(family), 1))
    images = images_of(model)
    graph, _ = rewrite(trace(WholeModel(model), 2), get_target(target), {"image": images.numpy()})
    assert lint(graph, get_target(target)) == []
    with torch.inference_mode():
        expected = model(images).numpy()
    np.testing.assert_allclose(OrtRunner(graph.SerializeToString())(images.numpy())["logits"], expected, atol=1e-5)


@pytest.mark.slow
def test_swin_v2_from_checkpoint_to_bundle(tmp_path: Path) -> None:
    """Only neurons leave: judged, repaired, held against the masked model and PyTorch, and loaded again."""
    model = {"name": "swinv2_tiny_window8_256", "args": {**SWIN, "num_classes": 10}, "random": 0}
    recipe = small_recipe(model=model, slim={"target": {"flops_ratio": 0.8}}, prune=None)
    done = api.export(recipe, tmp_path / "out")
    rungs = {rung.name: rung for rung in done.parity.rungs}
    assert done.parity.passed
    assert rungs["torch: narrower = masked"].smallest_atol < 1e-5
    widths = read_widths(tmp_path / "out" / "widths.json")
    assert {row.heads_before for row in widths.blocks} == {0}
    dense, slimmed = widths.costs["gmacs"]
    assert 0.75 * dense < slimmed <= 0.8 * dense
    assert " heads" not in summary(widths)
    assert api.check(tmp_path / "out").passed


def test_neurons_have_to_leave_where_heads_cannot(tmp_path: Path) -> None:
    model = {"name": "swinv2_tiny_window8_256", "args": {**SWIN, "num_classes": 10}, "random": 0}
    recipe = small_recipe(model=model, slim={"target": {"flops_ratio": 0.8}, "neurons": False}, prune=None)
    with pytest.raises(InputError, match="no head of swinv2_tiny_window8_256 can leave, so nothing may go"):
        api.slim(recipe, tmp_path / "slim.safetensors")


def test_tokens_of_swin_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    model = {"name": "swin_tiny_patch4_window7_224", "args": {**SMALL_SWIN, "num_classes": 10}}
    with pytest.raises(UnsupportedError, match="it is a SwinTransformer, not a plain VisionTransformer"):
        api.export(small_recipe(model=model), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("method", "rule"), [("taylor", "thresholds"), ("xpruner", "global"), ("xpruner", "thresholds")]
)
def test_every_method_and_rule_writes_a_checkpoint(tmp_path: Path, method: str, rule: str) -> None:
    section = {
        "method": method,
        "rule": rule,
        "target": {"flops_ratio": 0.7},
        "masks": {"epochs": 2},
        "thresholds": {"epochs": 2},
        "finetune": {"epochs": 1},
    }
    recipe = small_recipe(slim=section, prune=None)
    widths = api.slim(recipe, tmp_path / "slim.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"slim.safetensors", "slim.json"}
    assert widths.method == method
    assert ("rates" in widths.statistics) == (rule == "thresholds")
    assert len(widths.statistics.get("mask_losses", [])) == (2 if method == "xpruner" else 0)
    assert len(widths.statistics["finetune_losses"]) == 1
    args = recipe["model"]["args"]
    loaded = create_model("vit_tiny_patch16_224", args=args, checkpoint=tmp_path / "slim.safetensors")
    assert count_macs(loaded) / 1e9 == pytest.approx(widths.costs["gmacs"][1])
    # ... which any recipe takes, and whose tokens can be pruned
    again = small_recipe(model={"checkpoint": str(tmp_path / "slim.safetensors"), "random": None})
    budget = api.calibrate(again, tmp_path / "budget.json")
    assert budget.gmacs["dense"] == pytest.approx(widths.costs["gmacs"][1], rel=1e-3)


@pytest.mark.parametrize(
    ("section", "rounds"),
    [({}, 3), ({"rounds": 1}, 1), ({"rounds": 2, "repair": False}, 2), ({"rule": "thresholds"}, 1)],
)
def test_every_round_takes_its_part_and_judges_what_is_left(
    monkeypatch: pytest.MonkeyPatch, section: dict[str, Any], rounds: int
) -> None:
    seen: list[tuple[int, float]] = []

    def noted(model: Any, *arguments: Any, **more: Any) -> Any:
        seen.append((count_macs(model), sum(float(block.mlp.fc2.weight.sum()) for block in model.blocks)))
        return taylor(model, *arguments, **more)

    monkeypatch.setattr(stage, "taylor", noted)
    model = small_vit()
    asked = {"target": {"flops_ratio": 0.7}, "multiple": 8, "thresholds": {"epochs": 1}, **section}
    found = stage.slim_in_rounds(SlimSection.model_validate(asked), model, source_for(model, 4), Silence())
    dense = count_macs(model)
    allowed = [1 - 0.3 * number / rounds for number in range(rounds)]
    assert [macs / dense for macs, _ in seen] == pytest.approx(allowed, abs=0.02)
    assert all(macs <= share * dense for (macs, _), share in zip(seen, allowed, strict=True))
    assert 0.67 * dense < count_macs(found.model) <= 0.7 * dense
    assert len({weights for _, weights in seen}) == rounds
    assert [block.mlp.fc2.in_features for block in found.model.blocks] == list(found.widths.neurons)


def test_a_file_of_widths_is_followed_and_fits_or_is_refused(tmp_path: Path) -> None:
    recipe = small_recipe()
    model = create_model("vit_tiny_patch16_224", args=recipe["model"]["args"], random=0)
    widths = random_widths(model, 1)
    write_widths(widths, tmp_path / "w.json")
    section = {"widths": str(tmp_path / "w.json"), "repair": False}
    found = api.slim(small_recipe(slim=section, prune=None), tmp_path / "a.safetensors")
    assert found.blocks == widths.blocks
    rows = json.loads((tmp_path / "w.json").read_text())
    rows["blocks"][1]["heads_before"] = 9
    (tmp_path / "w.json").write_text(json.dumps(rows))
    with pytest.raises(InputError, match=r"w\.json: blocks\[1\]\.heads_before is 9, but the model has 3 there"):
        api.slim(small_recipe(slim=section, prune=None), tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def test_a_stopped_fine_tuning_is_gone_on_with(tmp_path: Path) -> None:
    """The epochs that were whole are not run again."""
    section = {"target": {"flops_ratio": 0.8}, "finetune": {"epochs": 4, "batch": 3}}
    recipe = small_recipe(slim=section, prune=None)

    class Stops:
        def __init__(self) -> None:
            self.name, self.seen = "", 0

        def stage(self, name: str, cached: bool = False) -> None:
            self.name = name

        def progress(self, done: int, total: int) -> None:
            if self.name == "slim" and total == 8:  # 6 images, 2 steps an epoch, 4 epochs
                self.seen += 1
                if done == 6:
                    raise KeyboardInterrupt

        def note(self, text: str) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        api.slim(recipe, tmp_path / "s.safetensors", listener=Stops())
    again: Any = Stops()
    with pytest.raises(KeyboardInterrupt):
        api.slim(recipe, tmp_path / "s.safetensors", listener=again)
    assert again.seen == 2  # the third epoch's first step and its last: two epochs were whole
    assert not (tmp_path / "s.safetensors").exists()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"target": {"gflops": 99.0}}, "slim.target asks for 99.000 GMACs, but the dense model costs"),
        ({"target": {"flops_ratio": 0.01}}, "the narrowest model that may be made costs"),
        ({"target": {"flops_ratio": 0.8}, "classes": [10]}, "slim.classes has 10, but the model's classes are 0 to 9"),
        ({}, "give exactly one of target, widths; found none of them"),
        ({"target": {"flops_ratio": 0.8}, "heads": False, "neurons": False}, "nothing may go"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, section: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        api.slim(small_recipe(slim=section, prune=None), tmp_path / "s.safetensors")
    assert said in str(error.value)
    assert not list(tmp_path.iterdir())


def test_labels_are_asked_for_where_masks_need_them(tmp_path: Path) -> None:
    recipe = small_recipe(
        images={"generator": "noise"}, slim={"method": "xpruner", "target": {"flops_ratio": 0.8}}, prune=None
    )
    with pytest.raises(InputError, match="needs labelled images"):
        api.slim(recipe, tmp_path / "s.safetensors")
    with pytest.raises(InputError, match="give prune .* slim .* or both"):
        api.slim(small_recipe(prune=None), tmp_path / "s.safetensors")
    with pytest.raises(InputError, match="the recipe has no slim section"):
        api.slim(small_recipe(), tmp_path / "s.safetensors")
    with pytest.raises(InputError, match="no prune section"):
        api.calibrate(small_recipe(slim={"target": {"flops_ratio": 0.8}}, prune=None), tmp_path / "b.json")
    with pytest.raises(InputError, match="is no name for a checkpoint"):
        api.slim(small_recipe(slim={"target": {"flops_ratio": 0.8}}), tmp_path / "s.pt")
