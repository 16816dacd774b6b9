"""The trained DeiT-Ti on real photos: what the rule keeps, and that the exported graph decides alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vitrim.calibration.images.listing import open_images
from vitrim.calibration.images.reading import read_all
from vitrim.calibration.tokens.budgets import make_budget
from vitrim.calibration.tokens.rules import default_rule
from vitrim.calibration.tokens.solve import from_target
from vitrim.exporter.core.fidelity import fidelity
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.load import create_model, preprocessing
from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.torch_runner import TorchRunner
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.exporter.runtime.rungs import compare
from vitrim.exporter.runtime.runners import OrtRunner, run_all

COUNT = 60


@pytest.fixture(scope="module")
def deit(data_folder: Path) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    model = create_model("deit_tiny_patch16_224", checkpoint=data_folder / "deit_tiny_patch16_224.fb_in1k.safetensors")
    source = open_images(
        data_folder / "imagenet_sample", preprocessing(model), classes=1000, count=COUNT, every=2, offset=1
    )
    images = read_all(source)
    assert source.labels is not None
    with torch.inference_mode():
        dense = model(torch.from_numpy(images)).numpy()
    return model, images, source.labels, dense


@pytest.mark.slow
def test_the_dense_model_classifies_the_photos(deit: Any) -> None:
    _, _, labels, dense = deit
    assert (dense.argmax(1) == labels).mean() > 0.6


@pytest.mark.slow
def test_zero_tprune_beats_random_patches_at_the_same_tokens(deit: Any) -> None:
    model, images, labels, dense = deit
    shape = describe(model)
    budget = from_target(shape, "zero_tprune", {}, 0.81e9, default_rule(shape, "zero_tprune", {}))
    blocks = [row.block for row in budget.stages if row.after > 1]
    stages = default_rule(shape, "random", {}, blocks=blocks).sized(get_method("random"), 12, 196, _kept(budget))
    divergence = {}
    for name, plan in (("ours", budget), ("random", make_budget(shape, "random", {}, stages))):
        assert plan.tokens == budget.tokens
        with torch.inference_mode():
            logits = PrunedViT(model, plan)(torch.from_numpy(images))
        assert isinstance(logits, torch.Tensor)
        divergence[name] = fidelity(dense, logits.numpy(), labels)
    assert divergence["ours"].agreement >= 0.88
    assert divergence["ours"].kl < 0.5 * divergence["random"].kl


def _kept(budget: Any) -> list[int]:
    return [row.after - 1 for row in budget.stages if row.after > 1]


@pytest.mark.slow
def test_the_exported_graph_decides_as_pytorch_does_on_photos(deit: Any) -> None:
    model, images, _, _ = deit
    shape = describe(model)
    budget = from_target(shape, "zero_tprune", {}, 0.81e9, default_rule(shape, "zero_tprune", {}))
    pruned = PrunedViT(model, budget, ("logits", "kept", "merged"))
    few = images[:20]
    traced, wanted = trace(pruned, 4), run_all(TorchRunner(pruned, 4), few, 4)
    for target in ("ort-cpu", "trt-8.5"):
        graph, _ = rewrite(traced, get_target(target), {"image": few[:4]})
        found = run_all(OrtRunner(graph.SerializeToString()), few, 4)
        rung = compare("photos", wanted, found, atol=1e-4, tie=1e-4)
        assert rung.passed, rung.reason
        assert all(stage.same_images > 0.9 for stage in rung.stages)
