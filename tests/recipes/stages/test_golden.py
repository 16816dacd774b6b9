"""Pixels in and best classes out through the whole pipeline: proof, golden files, manifest, words, and the device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers import SMALL_SWIN, small_recipe

from vitrim import api
from vitrim.calibration.images.generated import make_images
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.graph.decisions import LEFT_OUT
from vitrim.exporter.runtime.bench.timing import Timing
from vitrim.exporter.runtime.bundles.golden import load_golden
from vitrim.exporter.runtime.bundles.verify import verify_bundle
from vitrim.exporter.runtime.commands.bench import bench_bundle, random_images
from vitrim.exporter.runtime.runners import OrtRunner, run_all
from vitrim.recipes.pipeline.open import open_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, dict[str, Any]]:
    """A bundle of both ends on generated shapes, batch 2."""
    out = tmp_path_factory.mktemp("ends") / "out"
    recipe = small_recipe(export={"input": "uint8", "top_k": 3, "batch": 2}, parity={"golden": 4})
    return out, api.export(recipe, out), recipe


@pytest.mark.slow
def test_the_ladder_holds_pixels_and_classes(made: tuple[Path, Any, dict[str, Any]]) -> None:
    out, done, _ = made
    assert done.parity.passed
    assert done.parity.smallest_atol < 1e-4
    assert [rung.ranked is None for rung in done.parity.rungs] == [True, True, True, True, False, False]
    assert done.parity.rungs[-2].ranked < 1e-5
    assert done.parity.rungs[-1].ranked == 0
    assert done.fidelity.images == 12
    passes = json.loads((out / "passes.json").read_text())
    for row in passes.values():
        ends = [entry["count"] for entry in row["passes"] if entry["name"] != LEFT_OUT][-2:]
        assert ends == [1, 1]


def test_every_graph_has_the_ends(made: tuple[Path, Any, dict[str, Any]]) -> None:
    out = made[0]
    for name in ("model", "dense", "floor"):
        model = onnx.load(out / f"{name}.onnx")
        value = model.graph.input[0].type.tensor_type
        assert value.elem_type == onnx.TensorProto.UINT8
        assert [dim.dim_value for dim in value.shape.dim] == [2, 64, 64, 3]
        types = {output.name: output.type.tensor_type.elem_type for output in model.graph.output}
        assert (types["logits"], types["probabilities"], types["classes"]) == (1, 1, 6)
        assert "the graph normalizes" in {entry.key: entry.value for entry in model.metadata_props}["vitrim.input"]


def test_a_photo_s_bytes_give_pytorch_s_answer(made: tuple[Path, Any, dict[str, Any]]) -> None:
    """From outside: decoded bytes into the dense graph, timm's own model on timm's own normalization beside it."""
    out, _, recipe = made
    pixels, _ = make_images(2, 5, 64)
    found = OrtRunner(str(out / "dense.onnx"), threads=1)(pixels)
    model = open_model(api.recipe(recipe))
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    with torch.inference_mode():
        logits = model((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std)
    np.testing.assert_allclose(found["logits"], logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(found["probabilities"], logits.softmax(-1).topk(3).values.numpy(), atol=1e-5)


def test_golden_files_hold_pixels_and_pytorch_s_classes(made: tuple[Path, Any, dict[str, Any]]) -> None:
    out = made[0]
    golden = load_golden(out)
    assert (golden["image"].dtype, golden["image"].shape) == (np.uint8, (4, 64, 64, 3))
    assert len(np.unique(golden["image"])) > 100
    best = torch.from_numpy(golden["logits"]).softmax(-1).topk(3)
    assert (golden["classes"] == best.indices.numpy()).all()
    assert golden["classes"].dtype == np.int32
    assert (golden["probabilities"] == best.values.numpy()).all()
    found = run_all(OrtRunner(str(out / "model.onnx"), threads=1), golden["image"], 2)
    np.testing.assert_allclose(found["probabilities"], golden["probabilities"], atol=1e-5)


def test_the_device_checks_and_times_it(made: tuple[Path, Any, dict[str, Any]]) -> None:
    out = made[0]
    result = api.check(out)
    assert result.passed
    assert result.rungs[0].ranked < 1e-4
    assert not api.check(out, atol=1e-12).passed
    assert bench_bundle(out, Timing(runs=5, warmup=0)).batch == 2
    pixels = random_images((2, 8, 8, 3), np.dtype(np.uint8))
    assert (pixels.dtype, int(pixels.min()) < 10, int(pixels.max()) > 245) == (np.uint8, True, True)


def test_manifest_and_readme_say_what_to_feed(made: tuple[Path, Any, dict[str, Any]]) -> None:
    out = made[0]
    told = verify_bundle(out).input
    assert (told["dtype"], told["layout"], told["shape"]) == ("uint8", "NHWC", [2, 64, 64, 3])
    text = (out / "README.md").read_text()
    assert "- input `image` [2, 64, 64, 3] uint8 (NHWC): RGB pixels" in text
    assert "of the 3 best classes" in text


@pytest.mark.exhaustive
@pytest.mark.slow
def test_images_off_the_grid_come_onto_it(tmp_path: Path) -> None:
    images = np.random.default_rng(0).standard_normal((6, 3, 64, 64)).astype(np.float32)
    np.savez(tmp_path / "images.npz", image=images)
    source = {"generator": None, "path": str(tmp_path / "images.npz")}
    prune = {"target": None, "keep_rates": {2: 0.6}}
    recipe = small_recipe(images=source, export={"input": "uint8"}, evaluate=None, prune=prune)
    done = api.export(recipe, tmp_path / "out")
    assert done.parity.passed
    assert done.parity.smallest_atol < 1e-4
    assert api.check(tmp_path / "out").passed


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_slimmed_swin_takes_pixels(tmp_path: Path) -> None:
    recipe = small_recipe(
        model={"name": "swin_tiny_patch4_window7_224", "args": {**SMALL_SWIN, "num_classes": 10}},
        slim={"target": {"parameters_ratio": 0.8}, "multiple": 8},
        prune=None,
        export={"input": "uint8", "top_k": 2},
    )
    assert api.export(recipe, tmp_path / "out").parity.passed
    assert api.check(tmp_path / "out").passed


def test_what_does_not_fit_the_model_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="export.top_k is 11, but the model has 10 classes"):
        api.export(small_recipe(export={"top_k": 11}), tmp_path / "out")
    model = small_recipe()["model"] | {"preprocess": {"mean": [0.5]}}
    with pytest.raises(InputError, match="model.preprocess.mean has 1 value, but the model 3 channels"):
        api.export(small_recipe(model=model, export={"input": "uint8"}), tmp_path / "out")
    with pytest.raises(InputError, match=r"export\.input"):
        api.recipe(small_recipe(export={"input": "int8"}))
    assert not (tmp_path / "out").exists()
