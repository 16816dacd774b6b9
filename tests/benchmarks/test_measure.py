"""What benchmarks share: budgets of rows, what is kept and under which name, and intervals of paired differences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from helpers import small_vit
from measure import (
    QUICKSTART,
    Row,
    Subject,
    all_answers,
    answers,
    budget_of,
    command,
    in_percent,
    interval,
    keep,
    kept_file,
    kept_json,
    load_model,
    plan_of,
    tokens_of,
)

from vitrim.calibration.tokens.cost import dense_plan, model_macs
from vitrim.exporter.core.answers import divergence
from vitrim.exporter.core.fidelity import fidelity
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.vit import PrunedViT


@pytest.fixture(scope="module")
def model() -> Any:
    return small_vit(depth=4)


def test_a_row_s_blocks_are_those_of_its_budget(model: Any) -> None:
    shape = describe(model)
    budget = budget_of(shape, Row("here", "evit", blocks=(3, 9)), 0.8 * model_macs(shape, dense_plan(shape)))
    assert [row.block for row in budget.stages] == [1, 3]  # of four
    assert tokens_of(budget.stages) == f"1:{budget.blocks[1].after} 3:{budget.blocks[3].after}"
    other = budget_of(shape, Row("there", "evit", (("fuse", True),), blocks=(3, 9)), 1e9 * budget.gmacs["dense"] * 0.8)
    assert plan_of(other) != plan_of(budget)
    assert plan_of(None) is None
    assert "gmacs" not in plan_of(budget)  # it decides no answer


def test_answers_are_the_models_own_and_are_kept(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("measure.load_model", lambda label, data: model)
    images = tmp_path / "images.npy"
    np.save(images, np.random.default_rng(0).standard_normal((30, 3, 64, 64), dtype=np.float32))
    shape = describe(model)
    budget = budget_of(shape, Row("here", "evit", blocks=(3, 9)), 0.8 * model_macs(shape, dense_plan(shape)))
    whole = torch.from_numpy(np.load(images))
    with torch.inference_mode():
        dense, pruned = model(whole).numpy(), PrunedViT(model, budget)(whole).numpy()
    np.testing.assert_allclose(answers("small", None, images, None), dense, atol=1e-5)
    found = answers("small", None, images, budget)
    np.testing.assert_allclose(found, pruned, atol=1e-5)
    assert np.abs(found - dense).max() > 0.01
    # What is kept is not measured again, whatever it is called.
    subject = Subject("small", shape, images, "photos", None)
    for plan, value in ((None, 1.0), (budget, 2.0)):
        path = kept_file(tmp_path, ".npy", kind="answers", label="small", images="images", plan=plan_of(plan))
        keep(path, lambda part, value=value: np.save(part, np.full((30, 7), value)))
    again = all_answers({"dense": (subject, None), 7: (subject, budget)}, None, tmp_path, 1)
    assert [again[key].mean() for key in ("dense", 7)] == [1.0, 2.0]


def test_what_is_kept_depends_on_all_that_it_is_of(tmp_path: Path) -> None:
    first = kept_file(tmp_path, ".json", kind="latency", rounds=60)
    assert first == kept_file(tmp_path, ".json", rounds=60, kind="latency")
    assert first != kept_file(tmp_path, ".json", kind="latency", rounds=61)
    assert first.suffix == ".json"
    calls: list[int] = []

    def work() -> dict[str, Any]:
        calls.append(1)
        return {"speedup": 1.5}

    assert [kept_json(first, work) for _ in range(2)] == [{"speedup": 1.5}] * 2
    assert calls == [1]


def test_a_stopped_write_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "new" / "kept.json"

    def stopped(part: Path) -> None:
        part.write_text("{")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(path, stopped)
    assert not path.exists()
    keep(path, lambda part: part.write_text("{}"))
    assert json.loads(path.read_text()) == {}


def test_an_interval_of_differences_is_paired() -> None:
    rng = np.random.default_rng(1)
    ours = (rng.random(500) < 0.9).astype(float)
    theirs = ours.copy()
    theirs[:20] = 0  # right wherever theirs is, and at some more
    low, high = interval(ours - theirs)
    assert 0 < low < (ours - theirs).mean() < high < 0.08
    alone = interval(ours)
    assert high - low < alone[1] - alone[0]
    assert interval(np.ones(5)) == (1.0, 1.0)
    assert in_percent(np.array([True, True, True, True])) == "100.0 (100.0 to 100.0)"


def test_divergences_have_the_mean_that_reports_have() -> None:
    rng = np.random.default_rng(2)
    dense = rng.standard_normal((50, 9))
    pruned = dense + 0.3 * rng.standard_normal((50, 9))
    assert divergence(dense, pruned).mean() == pytest.approx(fidelity(dense, pruned, None).kl, rel=1e-12)
    assert divergence(dense, dense + 3).max() == pytest.approx(0, abs=1e-12)


def test_a_model_without_its_weights_is_explained() -> None:
    with pytest.raises(click.UsageError, match=r"^ViT-Ti needs --data: a folder with weights and photos"):
        load_model("ViT-Ti", None)
    assert load_model(QUICKSTART, None) is load_model(QUICKSTART, None)


def test_a_command_names_no_folder_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks/methods.py", "--data", "/here/data", "--rows", "PPT, free$"])
    assert command(Path("/here/data")) == "python benchmarks/methods.py --data DATA --rows 'PPT, free$'"
