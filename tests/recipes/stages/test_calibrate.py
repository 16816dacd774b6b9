"""From a recipe's `prune` section to a budget: the ways there are, the method that is taken, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers import small_recipe

from vitrim import api
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.methods import DEFAULT, get_method
from vitrim.exporter.pruning.methods.options import check_budget
from vitrim.recipes.listener import Silence
from vitrim.recipes.schema.sections.prune import PruneSection
from vitrim.recipes.stages.calibrate import WAYS, check_prune


class Notes(Silence):
    """Hears what a user is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def calibrated(tmp_path: Path, depth: int = 4, **prune: Any) -> Any:
    recipe = small_recipe() | {"prune": prune}
    recipe["model"] = recipe["model"] | {"args": recipe["model"]["args"] | {"depth": depth}}
    return api.calibrate(recipe, tmp_path / "b.json")


def test_every_way_that_a_recipe_has_is_in_the_table() -> None:
    values = {"target": {"flops_ratio": 0.7}, "preset": "a", "keep_rates": {1: 0.5}, "remove": 1, "mass": 0.5}
    for key, value in (values | {"budget": "b.json"}).items():
        assert getattr(PruneSection.model_validate({key: value}), key) is not None
    with pytest.raises(ValueError, match="exactly one of target, preset, keep_rates, remove, mass, budget"):
        PruneSection.model_validate({})
    assert set(WAYS) == set(values) == set(PruneSection.ways) - {"budget", "given"}


@pytest.mark.parametrize(
    ("prune", "said"),
    [
        ({"mass": 0.5, "method": "tomatoe"}, "unknown pruning method 'tomatoe'; did you mean tome"),
        ({"preset": "evit-07"}, "there is no preset 'evit-07'; did you mean evit-0.7"),
        ({"preset": "evit-0.7", "parameters": {"x\x1b": 1}}, r"prune\.parameters\.x\\x1b is not a known key"),
        ({"remove": 3, "parameters": {"place": "nowhere"}}, r"prune\.parameters\.place is 'nowhere'"),
        ({"budget": "none.json"}, "cannot read none.json"),
    ],
)
def test_what_a_section_says_wrongly_needs_no_model_to_be_told(prune: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_prune(PruneSection.model_validate(prune))


@pytest.mark.parametrize(
    ("prune", "method"),
    [
        ({"target": {"flops_ratio": 0.8}}, DEFAULT),
        ({"mass": 0.6}, DEFAULT),
        ({"keep_rates": {1: 0.6}}, DEFAULT),
        ({"method": "evit", "remove": 3}, "evit"),
        ({"method": "zero_tprune", "mass": 0.7}, "zero_tprune"),
        ({"preset": "tome-8"}, "tome"),
        ({"preset": "evit-0.7", "method": "tome"}, "evit"),  # a preset is of a method
    ],
)
def test_the_method_is_the_preset_s_or_the_recipe_s_or_the_best_measured(
    tmp_path: Path, prune: dict[str, Any], method: str
) -> None:
    budget = calibrated(tmp_path, depth=6, **prune)
    assert budget.method == method
    assert budget.stages
    check_budget(get_method(method), budget)
    assert budget.statistics.get("images") == (6 if get_method(method).has_scores else None)
    assert [len(found) for found in budget.statistics["gmacs_by_block"].values()] == [6, 6, 6]


def test_parameters_stand_over_a_preset_s(tmp_path: Path) -> None:
    plain = calibrated(tmp_path, depth=6, preset="evit-0.7")
    fused = calibrated(tmp_path, depth=6, preset="evit-0.7", parameters={"fuse": True})
    assert plain.parameters == {"place": "before_mlp"}
    assert fused.parameters == {"place": "before_mlp", "fuse": True}
    assert [row.after - 1 for row in plain.stages] == [12, 9, 7]
    assert [row.after - 1 for row in fused.stages] == [13, 11, 9]  # of 16, 13 and 11; and the fused token


def test_a_quantile_calibrates_thresholds_whatever_the_way(tmp_path: Path) -> None:
    prune = {"method": "ppt", "parameters": {"quantile": 0.5}}
    for way in ({"remove": 3, "blocks": [1, 2]}, {"target": {"flops_ratio": 0.8}}):
        budget = calibrated(tmp_path, **prune, **way)
        choosing = [row for row in budget.stages if row.after > 1]
        assert choosing
        assert all(row.options["threshold"] > 0 for row in choosing)
        assert len(budget.statistics["variance_quartiles"]) == len(choosing)


@pytest.mark.parametrize(
    ("prune", "reason"),
    [
        ({"method": "uniform", "mass": 0.5}, "prune.mass needs importance, which uniform does not have"),
        ({"method": "tome", "keep_rates": {1: 0.2}}, r"blocks\[1\] removes 13 of 17 tokens, but one stage of tome"),
        ({"method": "tomato", "remove": 1}, "unknown pruning method 'tomato'"),
        ({"given": True}, r"prune\.given: this recipe's budget was in memory.*give prune\.budget: FILE"),
        ({"remove": 1, "parameters": {"exponet": 1}}, r"prune\.parameters\.exponet is not a known key"),
        (
            {
                "method": "ppt",
                "parameters": {"quantile": 0.5},
                "target": {"flops_ratio": 0.8},
                "search": {"trials": 2},
            },
            r"prune\.search and parameters\.quantile both decide",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_a_budget_is_written(
    tmp_path: Path, prune: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        calibrated(tmp_path, **prune)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("target", "asked", "taken"),
    [("ort-cpu", None, 1), ("ort-cuda", None, 1), ("jetpack-6", None, 8), ("ort-trt", None, 8), ("trt-11", 4, 4)],
)
def test_tokens_are_multiples_where_tensorrt_runs_them(
    tmp_path: Path, target: str, asked: int | None, taken: int
) -> None:
    recipe = small_recipe(export={"target": target})
    recipe["model"] = {"name": "deit_tiny_patch16_224", "random": 0}
    recipe["prune"] = {"method": "evit", "target": {"flops_ratio": 0.65}, "multiple": asked}
    heard = Notes()
    budget = api.calibrate(recipe, tmp_path / "b.json", listener=heard)
    assert budget.statistics.get("multiple", 1) == taken
    assert {row.after % taken for row in budget.stages[:-1]} == {0}
    assert [note for note in heard.notes if "multiple" in note] == []


def test_a_multiple_that_misses_the_target_is_told(tmp_path: Path) -> None:
    heard = Notes()
    recipe = small_recipe() | {"prune": {"method": "evit", "target": {"flops_ratio": 0.8}, "multiple": 7}}
    budget = api.calibrate(recipe, tmp_path / "b.json", listener=heard)
    assert budget.statistics["multiple"] == 1
    assert [note for note in heard.notes if "multiple" in note] == [
        "no plan in multiples of 7 tokens meets the target: it has any number of tokens"
    ]


@pytest.mark.parametrize("prune", [{"keep_rates": {1: 0.6}}, {"remove": 3}, {"preset": "evit-0.7"}])
def test_numbers_that_are_given_stay(tmp_path: Path, prune: dict[str, Any]) -> None:
    plain = calibrated(tmp_path, depth=6, **prune)
    recipe = small_recipe(export={"target": "trt-11"}) | {"prune": {**prune, "multiple": 4}}
    recipe["model"] = recipe["model"] | {"args": recipe["model"]["args"] | {"depth": 6}}
    assert api.calibrate(recipe, tmp_path / "c.json").tokens == plain.tokens


def test_a_search_s_figures_stand_beside_the_scores(tmp_path: Path) -> None:
    budget = calibrated(tmp_path, depth=6, target={"flops_ratio": 0.8}, search={"trials": 3})
    assert budget.statistics["search"]["judged"] <= 3
    assert budget.statistics["search"]["kl_of_best"] <= budget.statistics["search"]["kl_of_rule"]
    assert budget.statistics["images"] == 6


def test_a_new_recipe_names_the_best_method(tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text(api.new("deit_tiny_patch16_224"))
    prune = api.recipe(str(tmp_path / "new.yaml")).prune
    assert prune is not None
    assert prune.method == DEFAULT
