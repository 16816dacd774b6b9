"""The best plans within reach: photos that no search saw, plans that change models, paired figures, and the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import small_vit, source_for
from measure import Row as MeasuredRow
from measure import budget_of
from reachable import (
    DERIVED,
    EVEN,
    FOUND,
    ODD,
    OTHER,
    RULE,
    Case,
    Derived,
    Measure,
    Tuning,
    cells,
    figures,
    main,
    page,
    plans_of,
    row,
    unseen,
)

from vitrim.calibration.images.sources import Part, choose
from vitrim.calibration.tokens.cost import graph_macs
from vitrim.exporter.pruning.shape import describe

GMACS = 0.75  # of the small model's graph


@pytest.fixture(scope="module")
def model() -> Any:
    return small_vit(depth=12)


@pytest.fixture
def data(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for both models, which are one small model here, and its 12 noise images of each half of the classes."""

    def images(place: Path, about: Any, *, count: int | None = None, offset: int = 0, **_: Any) -> Part:
        source = source_for(model, 12, seed=offset)
        return Part(source, choose(12, count=count))

    for module in ("measure", "reachable"):
        monkeypatch.setattr(f"{module}.load_model", lambda label, data: model)
        monkeypatch.setattr(f"{module}.open_images", images)
    return tmp_path


def test_unseen_photos_are_none_that_were_tuned_on() -> None:
    rest = unseen(500, 128, 200)
    assert len(rest) == len(set(rest)) == 200
    assert not set(rest) & set(choose(500, count=128))
    assert abs(rest.mean() - 249.5) < 3  # spread over all classes
    assert len(unseen(500, 128, 1000)) == 372


def test_starts_are_the_rule_and_the_preset_s_places(model: Any, data: Path) -> None:
    tuning = Tuning(data, 4, 0, data / "cache")
    gmacs = 0.78 * graph_macs(describe(model)) / 1e9  # each of eight stages has something to remove
    four, eight = (tuning.rule(Case("DeiT-Ti", gmacs, stages)) for stages in (4, 8))
    assert [stage.block for stage in four.choosing] == [3, 5, 7, 9]
    assert [stage.block for stage in eight.choosing] == [3, 4, 5, 6, 7, 8, 9, 10]
    assert all(0.97 * gmacs < budget.total_gmacs <= gmacs for budget in (four, eight))


def test_a_plan_is_measured_on_its_own_model_and_on_the_other() -> None:
    cases = [Case(label, 0.7, stages) for label in ("DeiT-Ti", "ViT-Ti") for stages in (4, 8)]
    rules: Any = {case: f"rule {case.stages}" for case in cases}
    found: Any = {case: f"{case.label} {case.stages}" for case in cases}
    plans = list(plans_of(cases, rules, found))
    assert len(plans) == 12
    assert (Case("ViT-Ti", 0.7, 8), OTHER, "DeiT-Ti 8") in plans
    assert (Case("DeiT-Ti", 0.7, 4), OTHER, "ViT-Ti 4") in plans
    assert (Case("DeiT-Ti", 0.7, 4), FOUND, "DeiT-Ti 4") in plans


def test_figures_are_paired_with_the_rule_s() -> None:
    dense = np.eye(5)[np.arange(100) % 5] * 4.0
    worse, better = dense.copy(), dense.copy()
    worse[:10] = np.roll(dense[:10], 1, axis=1)
    better[:4] = worse[:4]
    found = figures(dense, better, worse, dense.argmax(1))
    assert found["agreement"][0] == pytest.approx(0.96)
    assert found["agreement_above_rule"][0] == pytest.approx(0.06)
    assert 0 < found["agreement_above_rule"][1] < 0.06 < found["agreement_above_rule"][2]
    one = figures(dense, worse, dense, None)
    assert found["kl"] == pytest.approx(0.4 * one["kl"])
    assert found["kl_above_rule"][0] == pytest.approx(-0.6 * one["kl"])
    assert found["kl_above_rule"][2] < 0 < one["kl_above_rule"][1]
    assert (found["top1"], one["top1"]) == (pytest.approx(0.96), None)


def test_a_row_shows_what_the_search_tuned_and_what_others_lose(model: Any, data: Path) -> None:
    case = Case("DeiT-Ti", GMACS * graph_macs(describe(model)) / 1e9, 4)
    rule = Tuning(data, 4, 0, data / "cache").rule(case)
    told = {"kl_of_rule": 0.02, "kl_of_best": 0.015, "judged": 9}
    best = rule.model_copy(update={"statistics": {"search": told}})
    same = {"images": 7, "kl": 0.03, "kl_above_rule": [-0.001, -0.002, 0.001], "agreement": [0.9, 0.8, 1.0]}
    same |= {"agreement_above_rule": [0.01, 0.0, 0.02], "top1": 0.5}
    rows = [row(case, kind, plan, {"even": same, "odd": same}) for kind, plan in ((RULE, rule), (FOUND, best))]
    first, second = (cells(one, rows) for one in rows)
    assert first[4:9] == ["", "0.0200", "0.0300", "", "0.0300"]
    assert second[4:8] == ["9", "0.0150", "0.0300", "-0.0010 (-0.0020 to +0.0010)"]
    assert second[-3:] == ["90.0 (80.0 to 100.0)", "1.0 (0.0 to 2.0)", "50.0"]
    derived = [row(case, "simple", rule, {EVEN: same}), row(case, "simpler", rule, {EVEN: same, ODD: same})]
    kept = {"command": "it", "rows": rows, "trials": 9, "images": 4, "load": 1.0, "cores": 2, "derived": derived}
    shown = page(kept)
    assert "| simple | DeiT-Ti | " in shown
    assert shown.count("+0.0010) |  |  |  |") == 1  # one was not measured on odd photos
    assert "on 7 odd ones" in shown
    assert "even photos: rule, 4 stages; on odd ones 90.0 (80.0 to 100.0) %." in shown  # the first of equals
    assert shown.count("| rule, 4 stages |") == shown.count("| found, from 4 |") == 1


def test_a_simple_rule_has_its_weights_and_its_exponent(model: Any) -> None:
    shape = describe(model)
    gmacs = GMACS * graph_macs(shape) / 1e9
    plain, late = Derived("plain", (2, 4, 6, 8)), Derived("late", (2, 4, 6, 8), (0.05, 0.05), exponent=1.0)
    one, other = plain.budget(shape, gmacs), late.budget(shape, gmacs)
    assert [stage.block for stage in one.choosing] == [2, 4, 6, 8]
    assert [budget.parameters["exponent"] for budget in (one, other)] == [0.75, 1.0]
    assert other.choosing[0].after > one.choosing[0].after
    assert all(0.9 * gmacs < budget.total_gmacs <= gmacs for budget in (one, other))


def test_only_rules_that_are_better_on_all_models_are_tried_on_odd_photos(
    model: Any, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reachable.all_answers", _answers)
    shape = describe(model)
    gmacs = round(0.9 * graph_macs(shape) / 1e9, 5)
    better, same = Derived("better", (3, 5, 7, 9)), Derived("same", (3, 5))
    rules = {Case(label, gmacs, 2): same.budget(shape, gmacs) for label in ("DeiT-Ti", "ViT-Ti")}
    worse = budget_of(shape, MeasuredRow("", "slice", blocks=(0, 1, 2, 3)), 5e8 * gmacs)
    rules |= {Case(label, gmacs, 4): worse for label in ("DeiT-Ti", "ViT-Ti")}
    monkeypatch.setattr("reachable.DERIVED", (better, same))
    tuning = Tuning(data, 4, 0, data / "cache")
    photos = {label: tuning.photos(label, 8) for label in ("DeiT-Ti", "ViT-Ti")}
    rows = Measure(tuning, photos, rules, 1).derived((gmacs,))
    assert [(one["plan"], ODD in one) for one in rows] == [("better", True)] * 2 + [("same", False)] * 2
    assert rows[0][EVEN]["kl_above_rule"][2] < 0
    assert rows[2][EVEN]["kl_above_rule"] == [0, 0, 0]
    assert (rows[0][EVEN]["images"], rows[0][ODD]["images"]) == (8, 12)


@pytest.mark.slow
def test_a_run_goes_on_and_writes_the_page(model: Any, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'vitrim[search]'")
    from vitrim.calibration.tokens.study import Study

    judged: list[int] = []
    judge = Study.judge
    monkeypatch.setattr(Study, "judge", lambda self, *about: (judged.append(1), judge(self, *about))[1])
    monkeypatch.setattr("sys.argv", ["benchmarks/reachable.py", "--data", str(data)])
    monkeypatch.setattr("reachable.DERIVED", DERIVED[:1])
    monkeypatch.setattr("reachable.STARTS", {4: None})
    # A process of its own would not see this model.
    monkeypatch.setattr("reachable.all_answers", _answers)
    gmacs, out = f"{GMACS * graph_macs(describe(model)) / 1e9}", data / "page.md"
    common = ["--data", str(data), "--gmacs", gmacs, "--images", "4", "--unseen", "5", "--out", str(out)]
    common += ["--cache", str(data / "cache")]
    for more in (["--trials", "1", "--search-only"], ["--trials", "2"]):
        judged.clear()
        done = CliRunner().invoke(main, [*common, *more], catch_exceptions=False)
        assert done.exit_code == 0
        assert len(judged) == 2  # a new plan of every search
        assert out.exists() == (more[1] == "2")
    rows = json.loads(out.with_suffix(".json").read_text())["rows"]
    assert [one["plan"] for one in rows] == [RULE, FOUND, OTHER] * 2
    assert {one["even"]["images"] for one in rows} == {5}
    assert {one["odd"]["images"] for one in rows} == {12}
    assert all(one["odd"]["kl_above_rule"] == [0, 0, 0] for one in rows if one["plan"] == RULE)
    by = {(one["model"], one["stages"], one["plan"]): one for one in rows}
    assert by["DeiT-Ti", 4, FOUND]["tokens"] == by["ViT-Ti", 4, OTHER]["tokens"]
    assert out.read_text().count("## ") == 3


def _answers(wanted: Any, data: Any, cache: Any, processes: int) -> Any:
    from measure import answers

    return {key: answers(subject.label, data, subject.images, plan) for key, (subject, plan) in wanted.items()}
