"""The one correction that follows where a plan missed its predicted time."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from helpers import small_recipe
from listeners import Ears

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.runtime.bench.report import Prediction
from vitrim.recipes.pipeline.correct import corrected, corrected_recipe
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.stages.predicted import FILE


def recipe_with(**target: Any) -> Any:
    return recipe_from(small_recipe(prune={"target": {"speedup": 1.5, "table": "t.json", **target}}))


def predicted(folder: Path, error: float) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    Prediction(8.0, 8.0 / (1 + error), 1.5, 1.5 * (1 + error), "speedup", error).write(folder / FILE)
    return {"predicted": folder}


def test_a_miss_of_over_three_per_cent_is_made_up_for_once(tmp_path: Path) -> None:
    found = corrected_recipe(recipe_with(), predicted(tmp_path, -0.2))
    assert found.prune.target.correction_ms == pytest.approx(2.0)  # 8 ms predicted, 10 taken
    assert found.prune.target.table == recipe_with().prune.target.table
    assert corrected_recipe(recipe_with(), predicted(tmp_path, 0.25)).prune.target.correction_ms == pytest.approx(-1.6)
    for error in (0.029, -0.029):
        assert corrected_recipe(recipe_with(), predicted(tmp_path, error)) is None
    assert corrected_recipe(recipe_with(correction_ms=0.1), predicted(tmp_path, 0.2)) is None
    assert corrected_recipe(recipe_with(), {}) is None


class Walk:
    """Stands in for a run: remembers what it was made of."""

    def __init__(self, recipe: Any, folders: dict[str, Path], ears: Ears) -> None:
        self.recipe, self.folders, self.listener, self.target = recipe, folders, ears, None

    def of(self, recipe: Any, target: Any) -> Walk:
        return Walk(recipe, {}, self.listener)


def test_a_corrected_run_is_decided_first_and_then_done_whole(tmp_path: Path) -> None:
    ears, done = Ears(), list[Any]()

    def do(run: Any, stages: Iterable[Any] = ("all",)) -> None:
        done.append((run.recipe.prune.target.correction_ms, tuple(stages)))

    first: Any = Walk(recipe_with(), predicted(tmp_path, -0.2), ears)
    assert corrected(first, do, ("plan",)) is not first
    assert done == [(2.0, ("plan",)), (2.0, ("all",))]
    assert ears.notes == [
        "the pruned graph misses its predicted time by +2.000 ms; solved with that, and exported once more"
    ]
    near: Any = Walk(recipe_with(), predicted(tmp_path, 0.01), ears)
    assert corrected(near, do, ("plan",)) is near

    def refusing(run: Any, stages: Iterable[Any] = ()) -> None:
        raise InputError("out of reach")

    first = Walk(recipe_with(), predicted(tmp_path, -0.2), ears)
    assert corrected(first, refusing, ("plan",)) is first
    assert ears.notes[-1].endswith("with that the target cannot be met: out of reach")
