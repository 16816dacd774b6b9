"""What a recipe leaves open: which candidates there are, which one is kept, and why others are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from helpers import small_recipe
from listeners import Ears

from vitrim import api
from vitrim.cli import cli
from vitrim.exporter.core.errors import EnvironmentLackError, ParityError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.runtime.bench.choice import Choice, Tried
from vitrim.recipes.pipeline import auto
from vitrim.recipes.pipeline.auto import Candidate, candidates, fastest, is_open, lacking
from vitrim.recipes.schema.load import recipe_from

CPU = [("ort-cpu", "fp32"), ("ort-cpu", "int8")]
OPENVINO = [("openvino", name) for name in ("fp32", "fp16", "bf16", "int8")]


def found(**sections: Any) -> list[tuple[str, str]]:
    return [(one.target.name, one.precision) for one in candidates(recipe_from(small_recipe(**sections)))]


def test_a_group_leaves_the_precision_open_unless_one_is_named() -> None:
    assert found(export={"target": "cpu"}) == [*CPU, *OPENVINO]
    assert found(export={"target": "cpu"}, precision={"name": "auto"}) == [*CPU, *OPENVINO]
    assert found(export={"target": "cpu"}, precision={"name": "int8"}) == [CPU[1], OPENVINO[3]]
    assert found(export={"target": "cpu"}, precision={"name": "bf16"}) == [OPENVINO[2]]
    assert found(export={"target": "openvino"}, precision={"name": "auto"}) == OPENVINO


def test_only_what_is_open_is_chosen() -> None:
    assert not is_open(recipe_from(small_recipe()))
    assert not is_open(recipe_from(small_recipe(export={"target": "openvino"}, precision={"name": "bf16"})))
    assert is_open(recipe_from(small_recipe(export={"target": "cpu"}, precision={"name": "fp32"})))
    assert is_open(recipe_from(small_recipe(precision={"name": "auto"})))


def test_a_candidate_s_recipe_says_what_it_is_and_nothing_else_changes() -> None:
    recipe = recipe_from(small_recipe(export={"target": "cpu", "batch": 3}))
    own = Candidate(get_target("openvino"), "bf16").recipe(recipe)
    assert (own.export.target, own.export.batch) == ("openvino", 3)
    assert (own.precision.name, own.precision.keep_slower) == ("bf16", True)
    assert (own.folder, own.file) == (recipe.folder, recipe.file)
    assert not is_open(own)
    assert own.model_dump(exclude={"export", "precision"}) == recipe.model_dump(exclude={"export", "precision"})


def rows(**speeds: float) -> dict[Candidate, Tried]:
    kept = {}
    for name, speed in speeds.items():
        target, _, precision = name.partition("_")
        one = Candidate(get_target({"ort": "ort-cpu", "ov": "openvino"}[target]), precision)  # type: ignore[arg-type]
        kept[one] = Tried(one.target.name, precision, 1.0, 1 / speed, speed, (speed, speed))
    return kept


@pytest.mark.parametrize(
    ("speeds", "wanted"),
    [
        ({"ort_fp32": 1.0, "ort_int8": 2.0, "ov_bf16": 3.0}, "openvino in bf16"),
        ({"ort_fp32": 1.0, "ov_fp32": 0.9}, "ort-cpu in fp32"),
        ({"ort_fp32": 1.0, "ort_int8": 1.01}, "ort-cpu in fp32"),  # as fast, and nearer to the model
        ({"ov_bf16": 3.0, "ov_int8": 3.05}, "openvino in bf16"),
        ({"ov_bf16": 3.0, "ov_int8": 3.2}, "openvino in int8"),
        ({"ort_int8": 3.0, "ov_int8": 3.01}, "openvino in int8"),
    ],
)
def test_the_fastest_is_kept_and_among_equals_the_nearest_to_float32(speeds: dict[str, float], wanted: str) -> None:
    assert str(fastest(rows(**speeds))) == wanted


def test_what_the_machine_lacks_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = get_target("openvino")
    monkeypatch.setattr(auto, "capabilities", lambda device: frozenset({"FP32", "INT8"}))
    assert lacking(Candidate(openvino, "bf16")) == "this processor computes bf16 in float32"
    assert lacking(Candidate(openvino, "fp16")) == "this processor computes fp16 in float32"
    assert lacking(Candidate(openvino, "int8")) is None
    assert lacking(Candidate(get_target("ort-cpu"), "int8")) is None

    def gone(device: str) -> Any:
        raise EnvironmentLackError("openvino is not installed")

    monkeypatch.setattr(auto, "capabilities", gone)
    assert lacking(Candidate(openvino, "fp32")) == "openvino is not installed"


@pytest.mark.slow
def test_one_command_tries_what_there_is_and_publishes_the_fastest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "fastest", lambda rows: list(rows)[-1])  # times of so small a model decide nothing
    ears = Ears()
    recipe = small_recipe(export={"target": "cpu"}, precision={"name": "fp32"})
    recipe["bench"]["threads"] = 1
    done = api.export(recipe, tmp_path / "out", listener=ears)
    assert done.choice is not None
    assert [(row.target, row.precision, row.refused) for row in done.choice.tried] == [
        ("ort-cpu", "fp32", None),
        ("openvino", "fp32", None),
    ]
    assert all(row.median > 0 and row.agreement == 1.0 for row in done.choice.tried)
    assert done.choice.tried[0].speed == 1.0
    assert [note for note in ears.notes if note.startswith(("trying", "kept"))] == [
        "trying ort-cpu in fp32 (1 of 2)",
        "trying openvino in fp32 (2 of 2)",
        "kept openvino in fp32",
    ]
    assert (done.choice.target, done.recipe.export.target) == ("openvino", "openvino")
    assert done.bench is not None
    assert done.bench.runtime == "openvino-cpu"
    assert done.engine == "none belongs to openvino: OpenVINO compiles the graph when it loads it"
    assert Choice.read(tmp_path / "out" / "choice.json", "choice") == done.choice
    written = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())
    assert written["export"]["target"] == "openvino"
    assert api.check(tmp_path / "out").passed
    told = CliRunner().invoke(cli, ["inspect", str(tmp_path / "out")])
    assert told.exit_code == 0


def test_nothing_that_holds_is_an_error_with_the_first_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "lacking", lambda one: f"no {one}")
    with pytest.raises(ParityError, match="nothing that was tried holds: no ort-cpu in fp32"):
        api.export(small_recipe(export={"target": "cpu"}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
