"""What a worker of a sweep does: plans, and answers held against the dense ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import small_recipe
from listeners import Ears

from vitrim.calibration.tokens.outcome import MEMORY
from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.recipes.pipeline.cache import cache_of
from vitrim.recipes.pipeline.run import open_run
from vitrim.recipes.pipeline.walk import Run
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.schema.recipe import Recipe
from vitrim.recipes.sweep.points import Point, recipe_for
from vitrim.recipes.sweep.quality import Ask, Quality, Task, refuse_unsendable, threads

Begun = tuple[Run, Recipe]


@pytest.fixture
def begun(tmp_path: Path) -> Begun:
    base = recipe_from(small_recipe())
    return open_run(base, cache_of(tmp_path / "s", keeps=True), Ears()), base


def task_of(run: Run, **given: Any) -> Task:
    return Task(run.dense(), run.model(), run.sources, **{"look": 5, "studies": run.cache.root, **given})


def ask(base: Recipe, method: str = "tome", ratio: float = 0.7, **given: Any) -> Ask:
    point = Point(method, ratio, "fp32")
    return Ask((point,), recipe_for(base, point), **given)


def test_a_look_is_at_images_spread_over_all_and_all_are_answered_where_asked(begun: Begun) -> None:
    run, base = begun
    quality = Quality(task_of(run))
    found = quality(ask(base))
    assert found.budget is not None
    assert found.look is not None
    assert (found.look.images, found.answers, found.refused, found.notes) == (5, None, None, ())
    assert found.budget.blocks[-1].after < 17
    whole = quality(ask(base, budget=found.budget, whole=True))
    assert whole.look is found.look  # of the same plan once
    assert whole.answers is not None
    assert (whole.answers.images, whole.answers.on_calibration_images) == (12, False)
    assert whole.answers.accuracy_dense is not None
    few = Quality(task_of(run, look=64))(ask(base, whole=True))
    assert few.look is not None
    assert replace(few.look, on_calibration_images=False) == whole.answers


def test_images_that_do_not_fit_are_read_again(begun: Begun) -> None:
    run, base = begun
    kept, again = (Quality(task_of(run, memory=memory))(ask(base, whole=True)) for memory in (MEMORY, 0))
    assert kept == again


def test_a_plan_that_cannot_be_had_says_why_and_what_is_missing_here_ends_it(
    begun: Begun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, base = begun
    found = Quality(task_of(run))(ask(base, ratio=0.05))
    assert found.budget is None
    assert "the least is" in (found.refused or "")

    def lacking(*given: object, **more: object) -> None:
        raise EnvironmentLackError("there is no such package")

    monkeypatch.setattr("vitrim.recipes.sweep.quality.make_plan", lacking)
    with pytest.raises(EnvironmentLackError, match="^there is no such package$"):
        Quality(task_of(run))(ask(base))


def test_what_planning_notes_is_handed_on(begun: Begun) -> None:
    run, _ = begun
    base = recipe_from(small_recipe(prune={"method": "tome", "multiple": 16}))
    found = Quality(task_of(run))(ask(base))
    assert found.notes == ("no plan in multiples of 16 tokens meets the target: it has multiples of 4 tokens",)


def test_threads_are_a_worker_s_own_for_a_while() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
        with threads(None):
            assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_what_processes_cannot_be_told_is_said(begun: Begun) -> None:
    run, _ = begun
    task = task_of(run)
    refuse_unsendable(task)
    with pytest.raises(InputError, match="^this model or these images cannot be sent to workers .*leave workers out$"):
        refuse_unsendable(replace(task, dense=lambda images: images))
