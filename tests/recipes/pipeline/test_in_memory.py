"""For someone who holds a model: pruned, evaluated and exported from Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers import small_vit
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import vitrim
from vitrim import api
from vitrim.exporter.core.errors import InputError, UnsupportedError
from vitrim.exporter.core.fidelity import fidelity
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.recipes.pipeline.in_memory import recipe_of
from vitrim.recipes.schema.portable import dump_recipe

SMALL = {"parity": {"images": 4, "golden": 2}, "bench": {"runs": 5, "warmup": 0, "allow_slower": True}}


def loader(count: int = 20, labels: bool = True) -> DataLoader[Any]:
    draw = torch.Generator().manual_seed(3)
    images = torch.randn(count, 3, 64, 64, generator=draw)
    targets = torch.randint(0, 7, (count,), generator=draw)
    return DataLoader(TensorDataset(images, targets) if labels else TensorDataset(images), batch_size=8)


def test_pruning_gives_a_module_and_leaves_the_model_as_it_was() -> None:
    model = small_vit().train()
    for index, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(index % 2 == 0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    pruned = vitrim.prune(model, "frugal", flops_ratio=0.75)
    assert isinstance(pruned, PrunedViT)
    assert pruned.budget.method == "frugal"
    assert pruned.budget.gmacs["pruned"] <= 0.75 * pruned.budget.gmacs["dense"]
    assert model.training
    assert all(module.training for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [i % 2 == 0 for i, _ in enumerate(model.parameters())]
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    images = torch.randn(2, 3, 64, 64)
    assert pruned.eval()(images).shape == (2, 7)
    assert pruned.forward_features(images).shape[:2] == (2, pruned.budget.tokens[-1])
    pruned(images).sum().backward()
    assert model.patch_embed.proj.weight.grad is not None


@pytest.mark.parametrize(
    ("keywords", "tokens"),
    [
        ({"method": "evit", "keep_rates": {1: 0.5}}, (17, 9, 9, 9)),
        ({"method": "tome", "remove": 2, "blocks": [1, 2], "final": False}, (17, 15, 13, 13)),
        ({"gflops": 0.0021}, None),
        ({"method": "zero_tprune", "mass": 0.6, "blocks": [1], "images": "loader"}, None),
    ],
)
def test_keywords_are_keys_of_the_recipe(keywords: dict[str, Any], tokens: tuple[int, ...] | None) -> None:
    if keywords.get("images"):
        keywords = keywords | {"images": loader()}
    pruned = vitrim.prune(small_vit(), **keywords)
    assert tokens is None or pruned.budget.tokens == tokens
    assert pruned.budget.tokens[-1] < 17
    assert ("images" in pruned.budget.provenance) == ("images" in keywords)


def test_what_needs_images_says_so() -> None:
    for keywords in ({"method": "zero_tprune", "mass": 0.6}, {"flops_ratio": 0.8, "search": {"trials": 3}}):
        with pytest.raises(InputError, match="is decided on images: give images="):
            vitrim.prune(small_vit(), **keywords)
    with pytest.raises(InputError, match="prune has no keyword 'flops_ration'; did you mean flops_ratio"):
        vitrim.prune(small_vit(), flops_ration=0.5)
    with pytest.raises(UnsupportedError, match="is not supported"):
        vitrim.prune(torch.nn.Linear(3, 3), flops_ratio=0.5)


def test_evaluating_counts_what_a_whole_comparison_counts() -> None:
    model = small_vit()
    pruned = vitrim.prune(model, "evit", keep_rates={1: 0.3})
    found = vitrim.evaluate(pruned, loader())
    images, labels = loader().dataset.tensors  # type: ignore[attr-defined]
    with torch.inference_mode():
        wanted = fidelity(model(images).numpy(), pruned(images).numpy(), labels.numpy())
    assert found.agreement == wanted.agreement
    assert found.kl == pytest.approx(wanted.kl, rel=1e-5)
    assert (found.images, found.accuracy_dense, found.lost) == (20, wanted.accuracy_dense, wanted.lost)
    low, high = found.agreement_interval
    assert 0 <= low <= found.agreement <= high <= 1
    assert vitrim.evaluate(pruned, loader(labels=False), reference=model).accuracy_dense is None
    assert vitrim.evaluate(model, [torch.randn(3, 64, 64)], reference=model).agreement == 1.0


class Ears:
    """Remembers notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, name: str, cached: bool = False) -> None: ...

    def progress(self, done: int, total: int) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_labels_that_do_not_fit_are_told() -> None:
    model, ears = small_vit(), Ears()
    images = torch.randn(70, 3, 64, 64, generator=torch.Generator().manual_seed(0)) / 2
    with torch.inference_mode():
        right = model(images).argmax(1)
    wrong = (right + 1) % 7
    vitrim.evaluate(model, [(images, right)], reference=model, listener=ears)
    assert ears.notes == []
    found = vitrim.evaluate(model, [(images, wrong)], reference=model, listener=ears)
    assert found.accuracy_dense == 0
    assert ears.notes == [
        "dense top-1 is 0.0 % on 70 images: the labels do not fit the model, or it was not trained for them; see "
        "images.classes"
    ]
    with pytest.raises(InputError, match=r"labels reaches from 0 to 6, but the model's classes are 0 to 2"):
        vitrim.evaluate(small_vit(num_classes=3), [(images, torch.arange(70) % 7)], reference=small_vit(num_classes=3))


def test_images_may_be_a_section_with_a_class_file(tmp_path: Path) -> None:
    for name in ("dog", "ant"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (70, 70)).save(tmp_path / name / "a.png")
    (tmp_path / "classes.json").write_text('{"dog": 4, "ant": 6}')
    model, ears = small_vit(), Ears()
    section = {"path": str(tmp_path), "classes": str(tmp_path / "classes.json")}
    found = vitrim.evaluate(model, section, reference=model, listener=ears)
    assert (found.images, found.accuracy_dense is not None) == (2, True)
    assert ears.notes[-1].startswith("labels: 2 folders placed by ")
    for odd, said in (
        ({"path": str(tmp_path), "clases": "x"}, "images: clases is not a known key"),
        ({"given": True}, r"images\.given marks images that were in memory"),
        (None, "images: top level: give exactly one of path, generator"),
    ):
        with pytest.raises(InputError, match=said):
            vitrim.evaluate(model, odd, reference=model)


def test_evaluating_needs_a_reference_and_images() -> None:
    model = small_vit()
    with pytest.raises(InputError, match="give reference="):
        vitrim.evaluate(model, loader())
    with pytest.raises(InputError, match="there are no images"):
        vitrim.evaluate(model, [], reference=model)


@pytest.mark.slow
def test_a_pruned_model_becomes_a_bundle_that_says_its_recipe(tmp_path: Path) -> None:
    model = small_vit(num_classes=7).train()
    pruned = vitrim.prune(model, "frugal", flops_ratio=0.75)
    bundle = vitrim.export(pruned, tmp_path / "out", images=loader(), target="ort-cpu", **SMALL)
    assert bundle.parity.passed
    assert bundle.bench.speedup > 0
    assert bundle.budget is not None
    assert bundle.budget.blocks == pruned.budget.blocks
    assert bundle.fidelity.images == 10  # the other half of what the loader gave
    assert not bundle.fidelity.on_calibration_images
    assert model.training
    images = np.load(tmp_path / "out" / "golden.npz")["image"][:1]
    with torch.inference_mode():
        expected = pruned.eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(bundle.runner()(images)["logits"], expected, atol=1e-4)
    assert bundle.recipe.export.target == "ort-cpu"
    assert "budget: budget.json" in dump_recipe(bundle.recipe)
    with pytest.raises(InputError, match="this recipe's model was in memory, handed over in Python"):
        api.export(tmp_path / "out" / "recipe.yaml", tmp_path / "again")


def test_a_model_without_a_classifier_is_pruned_and_judged_by_its_features() -> None:
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=64, depth=2, embed_dim=48, num_heads=4, num_classes=0
    ).eval()
    pruned = vitrim.prune(model, "tome", remove=3, blocks=[0], final=False)
    images = torch.randn(24, 3, 64, 64)
    assert pruned(images[:2]).shape == (2, 48)
    assert pruned.forward_features(images[:2]).shape == (2, pruned.budget.tokens[-1], 48)
    found = vitrim.evaluate(pruned, DataLoader(TensorDataset(images, torch.arange(24)), batch_size=8))
    ours, theirs = (torch.nn.functional.normalize(each(images)) for each in (model, pruned))
    assert found.cosine == pytest.approx(float((ours * theirs).sum(1).mean().detach()), abs=1e-5)
    near = [(each @ each.T - 2 * torch.eye(24)).argmax(1) for each in (ours, theirs)]
    assert found.agreement == pytest.approx(float((near[0] == near[1]).float().mean()))
    assert found.accuracy_dense is None


@pytest.mark.slow
def test_features_travel_from_the_model_to_the_device(tmp_path: Path) -> None:
    size: dict[str, Any] = {"img_size": 56, "depth": 3, "embed_dim": 48, "num_heads": 4}
    model = timm.create_model("vit_small_patch14_dinov2", num_classes=0, **size).eval()
    out, images = tmp_path / "out", {"generator": "noise", "count": 8}
    plan = {"prune": {"method": "tome", "target": {"flops_ratio": 0.75}, "stages": 1}}
    done = vitrim.export(model, out, images=images, **plan, **SMALL)
    assert done.parity.passed
    assert {rung.output for rung in done.parity.rungs} == {"features"}
    assert done.fidelity.cosine is not None
    with np.load(out / "golden.npz") as golden:
        assert golden["features"].shape == (2, 48)
    ran = subprocess.run([sys.executable, out / "run_on_device.py", "check"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "neighbour 100.0%" in ran.stdout
    assert "`features` (pooled; the model has no classifier)" in (out / "README.md").read_text()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_plain_model_is_exported_with_prune_keywords(tmp_path: Path) -> None:
    bundle = vitrim.export(
        small_vit(num_classes=10),
        tmp_path / "out",
        images={"generator": "shapes", "count": 6},
        prune={"method": "evit", "keep_rates": {1: 0.5}},
        precision="fp16",
        target="jetpack-5",
        **SMALL,
    )
    assert bundle.parity.passed
    assert bundle.precision is not None
    assert bundle.precision.name == "fp16"
    assert bundle.recipe.prune is not None
    assert bundle.recipe.prune.method == "evit"


def test_an_export_needs_images_and_a_float32_model_on_the_cpu() -> None:
    pruned = vitrim.prune(small_vit(), "evit", keep_rates={1: 0.5})
    with pytest.raises(InputError, match="give images="):
        recipe_of(pruned, {})
    with pytest.raises(InputError, match=r"the model is torch\.float16 on cpu; export a float32 copy"):
        recipe_of(pruned.half(), {"images": loader()})
    with pytest.raises(InputError, match="give prune .* slim .* or both"):
        recipe_of(small_vit(), {"images": loader()})
