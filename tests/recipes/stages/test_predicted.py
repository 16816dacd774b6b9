"""What a table predicted against what was measured."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import budget_for, small_recipe, small_vit
from latency_tables import made_table

from vitrim.exporter.core import layout
from vitrim.exporter.core.latency import PlanLatency
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.pruning.budget import Budget, read_budget, write_budget
from vitrim.exporter.runtime.bench.report import Bench, Prediction
from vitrim.exporter.runtime.bench.turns import Samples
from vitrim.exporter.runtime.machine.named import machine_of
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.schema.sections.prune import TargetSection
from vitrim.recipes.stages.predicted import FILE, Predicted, prediction_of, with_prediction

TOLD = PlanLatency(8.0, 12.0, 0.0, made_table().of).to_json()
SAMPLES = Samples(20.0, {"dense": np.ones(3), "pruned": np.array([0.5, 0.4, 0.6])})


def told(budget: Budget) -> Budget:
    return budget.model_copy(update={"statistics": {"latency": TOLD}})


def test_a_speed_up_is_judged_as_a_ratio_and_a_latency_in_milliseconds_unless_others_computed() -> None:
    budget = told(budget_for(small_vit(), {1: 9}))
    by_ratio, by_time = TargetSection(speedup=1.5, table="t"), TargetSection(latency_ms=8.0, table="t")
    found = prediction_of(SAMPLES, False, budget, by_ratio)
    assert (found.judged_by, found.measured_ms, found.measured_speedup) == ("speedup", 10.0, 2.0)
    assert (found.predicted_speedup, found.error) == (1.5, pytest.approx(1 / 3))  # a third too slow
    found = prediction_of(SAMPLES, False, budget, by_time)
    assert (found.judged_by, found.error) == ("ms", pytest.approx(-0.2))
    assert prediction_of(SAMPLES, True, budget, by_time).judged_by == "speedup"


@pytest.mark.slow
def test_the_stage_times_the_graphs_of_a_run_as_the_table_was(walked: Any, tmp_path: Path) -> None:
    made_table(**machine_of(get_target("ort-cpu"))).write(tmp_path / "t.json")
    plan = tmp_path / "plan"
    shutil.copytree(walked.folders["calibrate"], plan)
    write_budget(told(read_budget(plan / layout.BUDGET)), plan / layout.BUDGET)
    target = {"speedup": 1.5, "table": str(tmp_path / "t.json")}
    recipe = recipe_from(small_recipe(prune={"target": target}))
    assert Predicted.wanted(recipe)
    assert not Predicted.wanted(walked.recipe)
    run = replace(walked, recipe=recipe, folders=walked.folders | {"calibrate": plan})
    Predicted.make(run.view(Predicted), tmp_path)
    found = Prediction.read(tmp_path / FILE, "prediction")
    assert (found.predicted_ms, found.judged_by) == (8.0, "speedup")
    assert 0.01 < found.measured_ms < 50
    assert found.error == pytest.approx(found.measured_speedup / 1.5 - 1)
    bench = Bench.read(walked.folders["bench"] / layout.BENCH, "benchmark")
    assert with_prediction(bench, tmp_path).prediction == found
    assert Bench.from_json(with_prediction(bench, tmp_path).to_json(), "b").prediction == found
