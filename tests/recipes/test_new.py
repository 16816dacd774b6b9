"""The recipe that `vitrim new` writes: valid, commented, with what the user said in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers_models import CLASSIFIERS, drawn, saved

from vitrim import api
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.methods import DEFAULT

MODEL = "deit_tiny_patch16_224"


def test_with_nothing_said_every_key_is_the_default(tmp_path: Path) -> None:
    api.new(MODEL, tmp_path / "deit.yaml")
    recipe = api.recipe(tmp_path / "deit.yaml")
    assert recipe.model.pretrained
    assert recipe.model.name == MODEL
    assert recipe.prune.method == DEFAULT == "frugal"
    assert recipe.prune.target is not None
    assert recipe.prune.target.gflops == 0.81  # 65 % of 1.25
    defaults = type(recipe).model_validate(
        {"model": {"name": MODEL, "random": 0}, "images": {"path": "photos"}, "prune": {"mass": 0.9}}
    )
    for section in ("export", "precision", "parity", "bench"):
        assert getattr(recipe, section) == getattr(defaults, section), section


def test_what_is_said_stands_in_the_recipe_and_paths_start_at_its_folder(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").touch()
    (tmp_path / "my photos").mkdir()
    out = tmp_path / "recipes" / "deit.yaml"
    out.parent.mkdir()
    text = api.new(
        MODEL,
        out,
        target="jetpack-6",
        precision="fp16",
        checkpoint=tmp_path / "weights.safetensors",
        images=tmp_path / "my photos",
        classes=37,
    )
    assert out.read_text(encoding="utf-8") == text
    recipe = api.recipe(out)
    assert recipe.export.target == "jetpack-6"
    assert recipe.precision.name == "fp16"
    assert not recipe.model.pretrained
    assert recipe.model.checkpoint == str(tmp_path / "weights.safetensors")
    assert recipe.model.args == {"num_classes": 37}
    assert recipe.images.path == str(tmp_path / "my photos")


def test_a_folder_of_transformers_says_its_model(tmp_path: Path) -> None:
    folder = saved(drawn(CLASSIFIERS["ViT"]), tmp_path / "my vit")
    api.new(str(folder), tmp_path / "mine.yaml")
    recipe = api.recipe(tmp_path / "mine.yaml")
    assert (recipe.model.name, recipe.model.checkpoint, recipe.model.pretrained) == (None, str(folder), False)
    assert (tmp_path / "mine.yaml").read_text().startswith("# my vit: 2 blocks, 17 tokens")
    with pytest.raises(InputError, match="has weights of its own; take --checkpoint out"):
        api.new(str(folder), checkpoint=folder / "model.safetensors")


def test_a_relative_path_is_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    assert 'path: "../photos"' in api.new(MODEL, "sub/deit.yaml", images="photos")
    monkeypatch.chdir("/")
    found = api.recipe(tmp_path / "sub" / "deit.yaml").images.path
    assert found is not None
    assert Path(found).resolve() == (tmp_path / "photos").resolve()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"target": "jet"}, "there is no target 'jet'"),
        ({"precision": "bf16"}, "precision.name: ort-cpu takes no bf16 graph"),
        ({"precision": "fp8"}, "precision.name"),
        ({"checkpoint": "no.safetensors"}, "no checkpoint at no.safetensors"),
        ({"images": "nowhere"}, "no images at nowhere"),
    ],
)
def test_what_does_not_fit_is_refused_and_no_file_written(tmp_path: Path, wrong: dict[str, str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        api.new(MODEL, tmp_path / "deit.yaml", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "deit.yaml").write_text("mine")
    with pytest.raises(InputError, match="exists; name another file"):
        api.new(MODEL, tmp_path / "deit.yaml")
    assert (tmp_path / "deit.yaml").read_text() == "mine"


def test_a_group_of_targets_leaves_the_precision_open() -> None:
    text = api.new(MODEL, target="cpu")
    assert ("  target: cpu " in text, "  name: auto " in text) == (True, True)
    assert "  name: int8 " in api.new(MODEL, target="cpu", precision="int8")


@pytest.mark.parametrize(
    ("model", "ratio", "units"),
    [
        ("swinv2_tiny_window8_256", 0.8, "fewer neurons; its heads cannot leave"),
        ("swin_tiny_patch4_window7_224", 0.8, "fewer heads and neurons"),
        ("efficientformer_l1", 0.97, "fewer neurons; its heads cannot leave"),  # 6 % of it can go at all
    ],
)
def test_a_model_whose_tokens_stay_is_slimmed(tmp_path: Path, model: str, ratio: float, units: str) -> None:
    text = api.new(model, tmp_path / "mine.yaml")
    recipe = api.recipe(tmp_path / "mine.yaml")
    assert recipe.prune is None
    assert recipe.slim.target.flops_ratio == ratio
    assert units in text
    assert "# Its tokens cannot be pruned: it is a " in text
