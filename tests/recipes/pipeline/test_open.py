"""What a recipe names, opened: the right weights, the right images, and which are left for the evaluation."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers import small_recipe, source_for
from PIL import Image
from safetensors.torch import save_file
from transformers_models import CLASSIFIERS, drawn, saved

from vitrim.calibration.images.generated import make_images
from vitrim.calibration.images.in_memory import ArrayImages
from vitrim.calibration.images.reading import read_all
from vitrim.calibration.images.sources import EightBit
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.load import preprocessing
from vitrim.recipes.pipeline.open import (
    Given,
    Sources,
    open_model,
    open_sources,
    preprocess_of,
)
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.schema.portable import portable


def sources_of(vit: Any, images: Any, given: Any = None, classes: int = 10, **sections: Any) -> Sources:
    """Opened images of a recipe that has these sections."""
    data = small_recipe(**sections) | {"images": images}
    if "evaluate" not in sections:
        del data["evaluate"]
    return open_sources(recipe_from(data), preprocessing(vit), classes, given or Given())


def test_a_checkpoint_is_the_one_that_the_recipe_was_made_with(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    random = open_model(recipe_from(small_recipe()))
    save_file(random.state_dict(), path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    section = small_recipe()["model"] | {"random": None, "checkpoint": str(path)}
    recipe = recipe_from(small_recipe() | {"model": section | {"sha256": found}})
    model = open_model(recipe)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in random.state_dict().items())
    other = "0123456789abcdef" * 4
    with pytest.raises(InputError) as caught:
        open_model(recipe_from(small_recipe() | {"model": section | {"sha256": other}}))
    assert str(caught.value) == (
        f"model.checkpoint: {path} is not the file that this recipe was made with (SHA-256 {found[:12]}..., not "
        "0123456789ab...); fetch that one, or take model.sha256 out"
    )


@pytest.mark.parametrize("scheme", ["hf-hub", "hf_hub"])
def test_a_name_on_the_hub_is_taken_as_timm_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    args = {"img_size": 32, "embed_dim": 48, "depth": 2, "num_heads": 3}
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=3, **args).eval()
    folder = tmp_path / "models--me--vit" / "snapshots" / ("0123456789" * 4)
    timm.models.save_for_hf(theirs, folder, model_args=args)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    name = f"{scheme}:me/vit@{folder.name}"
    for section in ({"name": name, "pretrained": True}, {"checkpoint": name}):
        model = open_model(recipe_from(small_recipe() | {"model": section}))
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in theirs.state_dict().items())


def test_a_folder_is_the_one_that_the_recipe_was_made_with(tmp_path: Path) -> None:
    folder = saved(drawn(CLASSIFIERS["ViT"]), tmp_path / "vit")
    recipe = recipe_from(small_recipe() | {"model": {"checkpoint": str(folder)}})
    assert open_model(recipe).num_classes == 3
    kept = portable(recipe.within(tmp_path))
    assert kept["model"]["checkpoint"] == "vit"
    open_model(recipe_from(kept | {"model": kept["model"] | {"checkpoint": str(folder)}}))
    (folder / "preprocessor_config.json").write_text('{"resample": 3}')
    with pytest.raises(InputError, match="is not the file that this recipe was made with"):
        open_model(recipe_from(kept | {"model": kept["model"] | {"checkpoint": str(folder)}}))


def test_a_model_in_memory_is_taken_as_it_is_and_missed_elsewhere(vit: Any) -> None:
    recipe = recipe_from(small_recipe() | {"model": {"name": "mine", "given": True}})
    assert open_model(recipe, Given(model=vit)) is vit
    with pytest.raises(InputError, match=r"^model\.given: .* handed over in Python; give model\.checkpoint: FILE$"):
        open_model(recipe)


def test_preprocessing_is_the_model_s_with_the_recipe_s_changes(vit: Any) -> None:
    section = small_recipe()["model"] | {"preprocess": {"mean": [0.1, 0.2, 0.3]}}
    found = preprocess_of(recipe_from(small_recipe() | {"model": section}), vit)
    own = preprocessing(vit)
    assert tuple(found.mean) == (0.1, 0.2, 0.3)
    assert (found.std, found.input_size) == (own.std, (3, 64, 64))


def test_noise_is_normal_and_repeatable(vit: Any) -> None:
    source = sources_of(vit, {"generator": "noise", "count": 3, "seed": 5}).calibration
    wanted = np.random.default_rng(5).standard_normal((3, 3, 64, 64), dtype=np.float32)
    np.testing.assert_array_equal(read_all(source), wanted)
    assert source.labels is None


def test_shapes_have_labels_where_the_model_has_their_classes(vit: Any) -> None:
    images = {"generator": "shapes", "count": 4, "seed": 3}
    found = sources_of(vit, images)
    pixels, labels = make_images(4, 3, 64)
    assert isinstance(found.calibration, ArrayImages)
    np.testing.assert_array_equal(found.calibration.pixels, pixels)
    np.testing.assert_array_equal(found.calibration.labels, labels)
    assert sources_of(vit, images, classes=7).calibration.labels is None


def test_generated_images_are_evaluated_on_64_of_the_next_seed(vit: Any) -> None:
    found = sources_of(vit, {"generator": "shapes", "count": 4, "seed": 3})
    assert found.disjoint
    assert isinstance(found.evaluation, ArrayImages)
    np.testing.assert_array_equal(found.evaluation.pixels, make_images(64, 4, 64)[0])


def test_a_class_file_labels_both_sections_and_everything_is_heard_once(vit: Any, tmp_path: Path) -> None:
    for name in ("dog", "ant"):
        for index in range(4):
            (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (80, 70)).save(tmp_path / "set" / name / f"{index}.png")
    (tmp_path / "set" / "notes.txt").write_text("x")
    (tmp_path / "classes.txt").write_text("dog\nant\n")
    images = {"path": str(tmp_path / "set"), "classes": str(tmp_path / "classes.txt"), "count": 4}
    heard: list[str] = []
    data = {key: value for key, value in small_recipe().items() if key != "evaluate"} | {"images": images}
    found = open_sources(recipe_from(data), preprocessing(vit), 2, note=heard.append)
    assert [found.calibration.labels.tolist(), found.evaluation.labels.tolist()] == [[1, 1, 0, 0]] * 2  # type: ignore[union-attr]
    assert found.disjoint
    wanted = [
        f"1 of 9 files in {tmp_path / 'set'} is no picture: notes.txt",
        f"labels: 2 folders placed by {tmp_path / 'classes.txt'}",
    ]
    assert heard == wanted
    heard.clear()
    both = recipe_from(data | {"evaluate": images | {"every": 2}})
    assert open_sources(both, preprocessing(vit), 2, note=heard.append).evaluation.labels is not None
    assert heard == wanted
    with pytest.raises(InputError, match=r"^evaluate\.classes: .* has 2 names, and the model 7 classes"):
        open_sources(recipe_from(data | {"images": {"generator": "noise"}, "evaluate": images}), preprocessing(vit), 7)


def test_an_npz_is_read_once(vit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", image=np.full((6, 70, 70, 3), 9, np.uint8))
    loads: list[object] = []
    whole = np.load
    monkeypatch.setattr(np, "load", lambda *given, **keywords: loads.append(given) or whole(*given, **keywords))
    found = sources_of(vit, {"path": str(tmp_path / "a.npz"), "count": 2})
    assert (len(found.calibration), found.evaluation is found.calibration, len(loads)) == (2, True, 1)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index in range(6):
        Image.new("RGB", (80, 70), (40 * index, 0, 0)).save(folder / f"{index}.png")
    return folder


def named(source: Any) -> list[str]:
    return [Path(name).stem for name in source.names]


def test_photos_that_are_left_over_are_for_the_evaluation(vit: Any, photos: Path) -> None:
    found = sources_of(vit, {"path": str(photos), "count": None, "every": 3})
    assert named(found.calibration) == ["0", "3"]
    assert named(found.evaluation) == ["1", "2", "4", "5"]
    assert found.disjoint


def test_where_nothing_is_left_the_calibration_images_serve_twice(vit: Any, photos: Path) -> None:
    found = sources_of(vit, {"path": str(photos), "count": 64})
    assert found.evaluation is found.calibration
    assert len(found.calibration) == 6
    assert not found.disjoint


@pytest.mark.parametrize(("offset", "disjoint"), [(0, False), (1, True)])
def test_an_evaluation_of_its_own_is_disjoint_where_no_name_is_in_both(
    vit: Any, photos: Path, offset: int, disjoint: bool
) -> None:
    images = {"path": str(photos), "every": 2}
    found = sources_of(vit, images, evaluate={"path": str(photos), "every": 2, "offset": offset, "generator": None})
    assert named(found.evaluation) == [str(index) for index in range(offset, 6, 2)]
    assert found.disjoint is disjoint


def test_a_graph_of_pixels_is_evaluated_on_images_that_are_pixels(vit: Any) -> None:
    images = {"generator": "noise", "count": 2}
    plain, pixels = sources_of(vit, images), sources_of(vit, images, export={"input": "uint8"})
    assert isinstance(pixels.evaluation, EightBit)
    assert not isinstance(pixels.calibration, EightBit)
    grid = (read_all(pixels.evaluation) * 0.5 + 0.5) * 255
    np.testing.assert_allclose(grid, grid.round(), atol=1e-3)
    assert np.abs(read_all(plain.evaluation) * 127.5 % 1).max() > 0.1  # noise itself is not on it


def test_images_in_memory_are_taken_and_missed_elsewhere(vit: Any) -> None:
    one, two = source_for(vit, 3), source_for(vit, 4, seed=1)
    found = sources_of(vit, {"given": True}, Given(calibration=one, evaluation=two))
    assert (found.calibration, found.evaluation, found.disjoint) == (one, two, True)
    alone = sources_of(vit, {"given": True}, Given(calibration=one))
    assert (alone.evaluation, alone.disjoint) == (one, False)
    with pytest.raises(InputError, match=r"^images\.given: .* handed over in Python; give images\.path$"):
        sources_of(vit, {"given": True})
    with pytest.raises(InputError, match=r"^evaluate\.given: .* handed over in Python; give evaluate\.path$"):
        sources_of(vit, {"generator": "noise"}, evaluate={"given": True, "generator": None})


def test_which_tensors_of_a_checkpoint_are_meant_is_said_by_the_recipe_and_told(tmp_path: Path) -> None:
    path, said = tmp_path / "w.pth", list[str]()
    state = open_model(recipe_from(small_recipe())).state_dict()
    averaged = {key: value + 1 for key, value in state.items()}
    torch.save({"model": state, "model_ema": averaged, "teacher": {"net": dict(averaged)}}, path)
    section = small_recipe()["model"] | {"random": None, "checkpoint": str(path)}
    for given, place, bias in (
        ({}, "model_ema", averaged),
        ({"ema": False, "state": "model"}, "model", state),
        ({"state": "teacher"}, "teacher.net", averaged),
    ):
        model = open_model(recipe_from(small_recipe() | {"model": section | given}), note=said.append)
        assert torch.equal(model.head.bias, bias["head.bias"])
        assert f"w.pth: the tensors at {place} are taken, not those at " in said.pop()
    with pytest.raises(InputError, match=r"models \(model, teacher\.net\); say which, such as model\.state: model"):
        open_model(recipe_from(small_recipe() | {"model": section | {"ema": False}}))


def test_one_source_for_an_outcome_is_halved_and_a_note_says_so(vit: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=make_images(9, 1, 64)[0], label=np.arange(9))
    target = {"prune": {"method": "evit", "target": {"agreement": 0.5}}}
    data = {key: value for key, value in small_recipe().items() if key != "evaluate"} | target
    heard: list[str] = []
    whole = {"path": str(tmp_path / "a.npz")}
    found = open_sources(recipe_from(data | {"images": whole}), preprocessing(vit), 10, note=heard.append)
    assert found.disjoint
    assert [found.calibration.labels.tolist(), found.evaluation.labels.tolist()] == [[0, 2, 4, 6, 8], [1, 3, 5, 7]]
    assert heard == [
        "no evaluate section: of the images, 5 even ones decide on the outcome and 4 odd ones judge",
    ]
    own = {"images": whole | {"every": 2}, "evaluate": whole | {"every": 2, "offset": 1}}
    found = open_sources(recipe_from(data | own), preprocessing(vit), 10)
    assert (found.disjoint, len(found.calibration), len(found.evaluation)) == (True, 5, 4)
    own = {"images": whole | {"every": 2}, "evaluate": whole | {"every": 4}}
    assert not open_sources(recipe_from(data | own), preprocessing(vit), 10).disjoint
    with pytest.raises(InputError, match="there is one image, but an outcome is decided on some"):
        open_sources(
            recipe_from(data | {"images": {"given": True}}),
            preprocessing(vit),
            10,
            Given(calibration=source_for(vit, 1)),
        )
