"""PyTorch's side of the ladder: made once, read by those that need it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import budget_for, small_recipe, small_vit, source_for

from vitrim.calibration.images.in_memory import ArrayImages
from vitrim.calibration.images.reading import read_all
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.recipes.listener import Silence
from vitrim.recipes.pipeline.cache import StageCache
from vitrim.recipes.pipeline.open import Given
from vitrim.recipes.pipeline.run import do_all, open_run
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.stages.calibrate import Calibrate
from vitrim.recipes.stages.reference import EAGER_IMAGES, Reference, first_images, widest_gap_batch


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PrunedViT]:
    model = small_vit(num_classes=10)
    plan = budget_for(model, {1: 9, 2: 5})
    recipe = small_recipe(model=None, parity={"images": 10}, export={"batch": 2}) | {
        "model": {"name": "vit_tiny_patch16_224", "given": True},
        "prune": {"given": True},
    }
    cache = StageCache(tmp_path_factory.mktemp("reference") / ".c.cache")
    run = open_run(recipe_from(recipe), cache, Silence(), Given(model=model, plan=plan))
    do_all(run, (Calibrate, Reference))
    return run.folders["reference"], PrunedViT(model, plan)


def test_it_holds_what_the_pruned_model_says(reference: tuple[Path, PrunedViT]) -> None:
    folder, pruned = reference
    images, outputs, eager = (np.load(folder / name) for name in ("images.npy", "outputs.npz", "eager.npz"))
    assert images.shape == (10, 3, 64, 64)
    with torch.inference_mode():
        trace = pruned.trace(torch.from_numpy(images))
        dense = pruned.model(torch.from_numpy(images[:EAGER_IMAGES]))
    assert trace.logits is not None
    np.testing.assert_allclose(outputs["logits"], trace.logits.numpy(), atol=1e-5)
    assert set(outputs.files) == {"logits", "kept_1", "kept_2", "gap_1", "gap_2"}
    np.testing.assert_array_equal(outputs["kept_2"], trace.kept[2].numpy())
    np.testing.assert_array_equal(eager["dense"], dense.numpy())
    np.testing.assert_array_equal(eager["nothing_removed"], dense.numpy())
    np.testing.assert_allclose(eager["dropped"], outputs["logits"][:EAGER_IMAGES], atol=1e-4)


def test_the_steadiest_images_are_taken(reference: tuple[Path, PrunedViT]) -> None:
    folder, _ = reference
    images, outputs = np.load(folder / "images.npy"), np.load(folder / "outputs.npz")
    narrowest = np.minimum(outputs["gap_1"], outputs["gap_2"])
    wanted = np.sort(np.argsort(-narrowest)[:3])
    np.testing.assert_array_equal(widest_gap_batch(folder, 3), images[wanted])


def test_the_first_images_come_in_whole_batches(vit: Any) -> None:
    source = source_for(vit, 5)
    every = read_all(source)
    np.testing.assert_array_equal(first_images(source, 5, 1), every)
    assert first_images(source, 3, 2).shape == (4, 3, 64, 64)
    assert first_images(source, 0, 1).shape[0] == 1
    np.testing.assert_array_equal(first_images(source, 2, 8), every[[0, 1, 2, 3, 4, 0, 1, 2]])  # too few: repeated
    with pytest.raises(InputError, match="^there are no images$"):
        first_images(ArrayImages(every[:0], None, source.preprocess, "none"), 1, 1)
