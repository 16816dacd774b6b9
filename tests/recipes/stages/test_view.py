"""What a stage may see of a run: what it declares, and nothing else."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from helpers import small_recipe

from vitrim.recipes.listener import Silence
from vitrim.recipes.pipeline.cache import StageCache
from vitrim.recipes.pipeline.run import open_run
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.stages.stage import Input, Stage
from vitrim.recipes.stages.view import UndeclaredError, View


class Example(Stage):
    name: ClassVar[str] = "example"
    needs: ClassVar[tuple[str, ...]] = ("trace", "precision")
    reads: ClassVar[tuple[str, ...]] = ("bench.runs", "prune", "slim.target")
    takes: ClassVar[tuple[Input, ...]] = ("calibration",)


class Greedy(Stage):
    name: ClassVar[str] = "greedy"
    takes: ClassVar[tuple[Input, ...]] = ("model", "dense", "plan", "calibration", "evaluation")


def run_with(**values: Any) -> Any:
    """A run of which only these things are known."""
    return SimpleNamespace(listener=Silence(), **values)


def test_what_is_not_declared_cannot_be_seen(tmp_path: Path) -> None:
    run = open_run(recipe_from(small_recipe()), StageCache(tmp_path / ".c.cache"), Silence())
    view = run.view(Example)
    assert view.recipe.bench.runs == 5
    assert view.recipe.prune.target.flops_ratio == 0.7  # type: ignore[union-attr]
    assert view.recipe.slim is None
    assert len(view.calibration) == 6
    assert view.preprocess.input_size == (3, 64, 64)
    for look, what in (
        (lambda: view.recipe.bench.threads, r"the stage example reads bench\.threads of the recipe and does not"),
        (lambda: view.recipe.export, "reads export of the recipe"),
        (lambda: view.evaluation, "uses the input evaluation"),
        (lambda: view.model, "uses the input model"),
        (lambda: view.dense, "uses the input dense"),
        (lambda: view.plan, "uses the input plan"),
        (lambda: view.disjoint, "whether the images are disjoint"),
        (lambda: view.folder("calibrate"), "uses the result of calibrate"),
        (lambda: view.folder_if_any("calibrate"), "uses the result of calibrate"),
        (lambda: view.made_now("calibrate"), "uses the result of calibrate"),
    ):
        with pytest.raises(UndeclaredError, match=what):
            look()


def test_the_error_says_which_stage_and_what() -> None:
    view = View(run_with(), Example)
    with pytest.raises(UndeclaredError) as caught:
        view.evaluation  # noqa: B018
    assert str(caught.value) == "the stage example uses the input evaluation and does not declare it"


def test_a_part_of_a_section_opens_no_other_part() -> None:
    recipe = recipe_from(small_recipe(slim={"target": {"flops_ratio": 0.8}}))
    section = View(run_with(recipe=recipe), Example).recipe.slim
    assert section is not None
    assert section.target.flops_ratio == 0.8  # type: ignore[union-attr]
    with pytest.raises(UndeclaredError, match=r"reads slim\.method of the recipe"):
        section.method  # noqa: B018
    with pytest.raises(AttributeError, match="nothing"):
        section.nothing  # noqa: B018


def test_a_result_that_the_recipe_does_not_want_is_none(tmp_path: Path) -> None:
    view = View(run_with(folders={"trace": tmp_path}, made={"trace"}), Example)
    assert view.folder("trace") == view.folder_if_any("trace") == tmp_path
    assert view.folder_if_any("precision") is None
    with pytest.raises(AssertionError, match="^precision is not wanted by this recipe$"):
        view.folder("precision")
    assert view.made_now("trace")
    assert not view.made_now("precision")


def test_everything_that_is_declared_is_the_run_s() -> None:
    run = run_with(
        model=lambda: "narrow",
        dense=lambda: "whole",
        given=SimpleNamespace(plan="plan"),
        sources=SimpleNamespace(calibration="some", evaluation="others", disjoint=True),
        preprocess="how",
    )
    view = View(run, Greedy)
    assert (view.model, view.dense, view.plan) == ("narrow", "whole", "plan")
    assert (view.calibration, view.evaluation, view.disjoint, view.preprocess) == ("some", "others", True, "how")


def test_a_lasting_file_is_bound_to_the_stage_s_key(tmp_path: Path) -> None:
    view = View(run_with(cache=SimpleNamespace(root=tmp_path)), Example, "0123")
    assert view.lasting_file("finetune", ".pt") == tmp_path / "finetune-0123.pt"
