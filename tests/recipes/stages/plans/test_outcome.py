"""A budget for an outcome: decided on some images and judged on others, in a file, in memory and in a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import small_recipe, small_vit, source_for
from latency_tables import made_table
from listeners import Ears

import vitrim
from vitrim import api
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.latency import StageCost, latency_of
from vitrim.exporter.core.outcome import Outcome, outcome_of
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.runtime.machine.named import machine_of
from vitrim.recipes.pipeline.recover import open_model
from vitrim.recipes.schema.load import recipe_from
from vitrim.recipes.stages.plans.tables import measures_here, model_of

IMAGES = {"generator": "noise", "count": 40}


def recipe_for(target: dict[str, Any], **sections: Any) -> dict[str, Any]:
    own = {"images": IMAGES, "evaluate": IMAGES | {"seed": 1}} | sections
    return small_recipe() | own | {"prune": {"method": "evit", "target": target}}


def asked(budget: Any) -> Outcome:
    found = outcome_of(budget.statistics)
    assert found is not None
    return found


def test_a_wish_is_predicted_by_the_table_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    here = (
        machine_of(get_target("ort-cpu"))
        | model_of(describe(open_model(recipe_from(recipe_for({"kl": 1.0})))))
        | {"threads": 1}
    )
    made_table(stages={"evit": StageCost(0.5, 0.0)}, **here).write(path)
    target = {"agreement": 0.6, "speedup": 1.2, "table": str(path)}
    budget = api.calibrate(recipe_for(target, bench={"threads": 1}), tmp_path / "b.json")
    told, wish = latency_of(budget.statistics), asked(budget).wish
    assert told is not None
    assert wish is not None
    assert (wish.by, told.dense_ms, told.table.model) == ("table", 9.5, "vit_tiny_patch16_224")
    assert wish.predicted == pytest.approx(9.5 / told.predicted_ms, rel=1e-5)
    assert not measures_here(recipe_from(recipe_for(target)))  # the benchmark says whether it is met
    with pytest.raises(InputError, match=r"does not know tome \(it knows evit\)"):
        api.calibrate(recipe_for(target, bench={"threads": 1}), tmp_path / "c.json", settings={"prune.method": "tome"})


def test_a_budget_says_what_it_promises_and_what_other_images_gave(tmp_path: Path) -> None:
    heard = Ears()
    loose = asked(api.calibrate(recipe_for({"agreement": 0.6, "speedup": 9.0}), tmp_path / "a.json", listener=heard))
    tight = api.calibrate(recipe_for({"agreement": 0.9}), tmp_path / "b.json")
    assert loose.promised.interval is not None
    assert loose.promised.interval[0] >= 0.6
    assert (loose.images, len(loose.tried) > 1, loose.tried[-1].holds) == (40, True, True)
    assert loose.judged is not None
    assert (loose.judged.images, loose.judged.apart, loose.judged.by) == (40, True, "PyTorch")
    assert loose.wish is not None
    assert loose.wish.predicted < 9
    assert any("speed-up of 9.00" in note and "not met" in note for note in heard.notes)
    holding = [row.gmacs for row in asked(tight).tried if row.holds]
    assert min(holding) == pytest.approx(tight.total_gmacs, abs=1e-5)
    assert min(row.gmacs for row in loose.tried if row.holds) <= min(holding)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (
            {"agreement": 0.97},
            r"0\.97, which 40 images cannot show: .* begins at 91\.2 %; give 125 or more .*most 0\.9123$",
        ),
        ({"top1_drop": 0.5}, "prune.target.top1_drop is held against labels, which the images of `images` do not have"),
        ({"kl": 1e-9}, r"kl is 1e-09, but the plan that removes least \([0-9.]+ GMACs\) has .*; ask for at least 0\.0"),
    ],
)
def test_what_cannot_be_reached_is_said_with_the_best_that_can(
    tmp_path: Path, target: dict[str, float], said: str
) -> None:
    recipe = recipe_for(target)
    recipe["prune"]["final"] = False
    with pytest.raises(InputError, match=said):
        api.calibrate(recipe, tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_keywords_of_python_halve_the_images_that_they_get() -> None:
    model = small_vit()
    source, heard = source_for(model, 60), Ears()
    pruned = vitrim.prune(model, "evit", agreement=0.7, images=source, listener=heard)
    found = asked(pruned.budget)
    assert found.judged is not None
    assert (found.images, found.judged.images, found.judged.apart) == (30, 30, True)
    assert any("30 even ones decide on the outcome and 30 odd ones judge" in note for note in heard.notes)
    other = vitrim.prune(model, "evit", top1_drop=0.9, images=source, evaluate=source_for(model, 9, seed=3))
    found = asked(other.budget)
    assert found.judged is not None
    assert (found.images, found.judged.images, found.judged.apart) == (60, 9, True)
    with pytest.raises(InputError, match="evaluate= is what an outcome is judged on"):
        vitrim.prune(model, "evit", flops_ratio=0.7, images=source, evaluate=source)
    with pytest.raises(InputError, match="give images="):
        vitrim.prune(model, "evit", agreement=0.7)


@pytest.mark.slow
def test_a_bundle_s_budget_is_judged_by_its_graph(tmp_path: Path) -> None:
    done = api.export(recipe_for({"kl": 5.0, "speedup": 1.0}), tmp_path / "out")
    found = asked(done.budget)
    assert found.judged is not None
    assert (found.judged.by, found.judged.images) == ("the graph", done.fidelity.images)
    assert found.judged.figure.value == done.fidelity.kl
    page = (tmp_path / "out" / "README.md").read_text()
    assert "- Asked: divergence from the dense model of at most 5.0000. Promised: " in page
    assert "- Wished: speed-up of 1.00; measured " in page
    assert api.check(tmp_path / "out").passed
