"""A study: never worse than the rule, repeatable, and with nothing lost whoever dies; run where optuna is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import small_vit, source_for

from vitrim.calibration.tokens import owner, shards
from vitrim.calibration.tokens.cost import dense_plan, model_macs, total_macs
from vitrim.calibration.tokens.neighbours import Frame
from vitrim.calibration.tokens.rules import default_rule
from vitrim.calibration.tokens.solve import from_target
from vitrim.calibration.tokens.study import TRIES, Study, Task, Trials, search_by_study
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.shape import describe

optuna = pytest.importorskip("optuna", reason="optuna is not installed: pip install 'vitrim[search]'")
pytestmark = pytest.mark.slow  # every step of a study is synced to the disk


class Here:
    """This process, until it is killed after some plans."""

    def __init__(self, most: int = 1000) -> None:
        self.most = most

    def map(self, make: Callable[[], Callable[[int], int]], items: Sequence[int]) -> Iterator[tuple[int, int]]:
        work = make()
        for item in items:
            if not self.most:
                raise KeyboardInterrupt
            self.most -= 1
            yield item, work(item)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Task:
    monkeypatch.setattr(shards, "SHARD", 2)
    model = small_vit(depth=6)
    shape = describe(model)
    limit = 0.7 * model_macs(shape, dense_plan(shape))
    start = from_target(shape, "zero_tprune", {}, limit, default_rule(shape, "zero_tprune", {}))
    frame = Frame(shape, start, limit)
    return Task(model, source_for(model, 8), 8, frame, "s", trials=12, storage=str(tmp_path / "study"))


def test_a_study_is_never_worse_than_the_rule_and_repeatable(task: Task) -> None:
    heard: list[tuple[int, int]] = []
    found = search_by_study(replace(task, storage=None), Here(), lambda *done: heard.append(done))
    assert found == search_by_study(task, Here())
    assert found.kl_of_best <= found.kl_of_rule
    assert heard == [(done, 12) for done in range(1, 13)]
    assert (found.judged, found.lost, found.images) == (12, 0, 8)
    assert total_macs(task.frame.shape, found.budget) <= task.frame.limit
    assert found.stopped > 0
    assert found.images_seen < 12 * 8


def test_without_halving_every_plan_sees_every_image_and_seeds_differ(task: Task) -> None:
    found = search_by_study(replace(task, storage=None, halving=False), Here())
    assert (found.stopped, found.images_seen) == (0, 8 * (12 - found.unfit))
    other = search_by_study(replace(task, storage=None, halving=False, seed=1), Here())
    assert other.kl_of_rule == found.kl_of_rule
    assert other != found


def test_the_first_plan_is_the_rule_s_and_is_never_given_up(task: Task) -> None:
    found = search_by_study(replace(task, trials=1), Here())
    assert found.budget == task.frame.like
    assert (found.kl_of_best, found.images_seen) == (found.kl_of_rule, 8)


def test_more_trials_later_go_on_with_the_same_study(task: Task) -> None:
    whole, notes = search_by_study(replace(task, storage=None), Here()), list[str]()
    search_by_study(replace(task, trials=5), Here())
    assert search_by_study(task, Here(), note=notes.append) == whole
    assert notes == ["the search goes on after 5 of 12 plans"]
    assert search_by_study(replace(task, trials=3), Here(), note=notes.append) == whole
    assert notes[1:] == ["the search goes on after 12 of 12 plans"]


def died(monkeypatch: pytest.MonkeyPatch, task: Task, shard: int) -> None:
    """Somebody asks for the next plan and is killed at a shard."""
    study = Study(task)
    study.begin()
    asked = study.ask()
    assert asked is not None
    with monkeypatch.context() as patch:
        judge = Trials(task, study)._shards
        whole, calls = judge.distances, list[int]()

        def distances(budget: Any, index: int) -> Any:
            calls.append(index)
            if len(calls) > shard:
                raise KeyboardInterrupt
            return whole(budget, index)

        patch.setattr(judge, "distances", distances)
        with pytest.raises(KeyboardInterrupt):
            study.judge(*asked, judge)


def all_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process that signed so far has ended."""
    now = owner._started(owner.os.getpid())
    monkeypatch.setattr(owner, "_started", lambda pid: f"{now} and later")


@pytest.mark.parametrize("shard", [0, 2])
def test_what_a_killed_process_had_is_judged_again_and_the_end_is_the_same(
    task: Task, shard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = replace(task, halving=False)
    whole = search_by_study(replace(task, storage=None), Here())
    with pytest.raises(KeyboardInterrupt):
        search_by_study(task, Here(5))
    died(monkeypatch, task, shard)
    assert Study(task).left() == 12 - 5 - 1  # it lives as far as anybody knows
    all_dead(monkeypatch)
    assert Study(task).left() == 12 - 5
    found = search_by_study(task, Here())
    assert found.lost == 1
    same = replace(found, lost=0, images_seen=whole.images_seen)
    assert same == whole
    assert found.images_seen - whole.images_seen == 2 * shard  # of the killed one


def test_a_plan_whose_judges_die_again_and_again_is_left(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    search_by_study(replace(task, trials=2), Here())
    for _ in range(TRIES):
        died(monkeypatch, task, 0)
        all_dead(monkeypatch)
        Study(task).reclaim()
    study = Study(task)
    assert len(study._trials("FAIL")) == TRIES
    assert study._trials("WAITING") == []
    assert study.left() == 10


def test_one_that_was_taken_for_dead_and_lives_changes_nothing(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    search_by_study(replace(task, trials=2), Here())
    slow = Study(task)
    asked = slow.ask()
    assert asked is not None
    with monkeypatch.context() as patch:
        all_dead(patch)
        Study(task).reclaim()
    slow.judge(*asked, Trials(task, slow)._shards)
    assert slow.finished() == 2
    assert slow.left() == 10


def test_what_removes_nothing_cannot_be_searched(task: Task) -> None:
    whole = [row.model_copy(update={"before": 17, "after": 17, "options": {}}) for row in task.frame.like.blocks]
    frame = replace(task.frame, like=task.frame.like.model_copy(update={"blocks": tuple(whole)}))
    with pytest.raises(InputError, match=r"prune\.search needs a budget that prunes"):
        Study(replace(task, frame=frame))
