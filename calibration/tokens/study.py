"""Search of a budget by Optuna: the study's storage is the state, so any process may end at any time.

Whoever works on a study asks it for the next plan, judges it shard by shard, and tells it what came of it: workers of
one command and of others alike. A plan whose judge was killed is taken back and queued again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import torch

from ...exporter.core.errors import InputError
from ...exporter.pruning.budget import Budget
from ..images.sources import ImageSource
from .neighbours import Frame
from .owner import Owner, is_lost
from .shards import Cut, Shards, survives
from .space import Values, budget_of, changed, first_values, propose
from .storage import need_optuna, open_storage

TRIES = 3  # times that a plan is judged whose judges are killed
POLL = 0.5  # seconds between two looks at a study whose last plans others judge
_RULE, _OWNER, _AGAIN, _TRIES = "rule", "owner", "again", "tries"


@dataclass(frozen=True)
class Task:
    """All that a worker has to know; it can be pickled.

    Attributes:
        model: the dense model.
        source: calibration images.
        largest: images of it that plans are judged on at most.
        frame: what all plans have in common; `like` is the rule's.
        name: of the study: a hash of all that its figures depend on.
        trials: plans that the study has in the end.
        seed: of what is proposed.
        halving: whether plans are given up at rungs.
        storage: a journal's path or a database's URL; None: the memory of this process.
        threads: of the CPU, for a worker of its own; None leaves them.
    """

    model: Any
    source: ImageSource
    largest: int
    frame: Frame
    name: str
    trials: int
    seed: int = 0
    halving: bool = True
    storage: str | None = None
    threads: int | None = None


class Place(Protocol):
    """Where trials run, see `vitrim.recipes.pools`."""

    def map(self, make: Callable[[], Callable[[int], int]], items: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Do what `make` returns with every item."""


@dataclass(frozen=True)
class Standing:
    """What a study has come to.

    Attributes:
        budget: the best plan.
        judged: plans, the rule's own among them.
        stopped: of them, given up at a rung.
        unfit: of them, numbers that are no plan at the cost.
        lost: trials whose judge was killed, and that were queued again.
        images: that a plan is judged on at most.
        images_seen: all in all.
        kl_of_rule, kl_of_best: mean divergence on all images.
    """

    budget: Budget
    judged: int
    stopped: int
    unfit: int
    lost: int
    images: int
    images_seen: int
    kl_of_rule: float
    kl_of_best: float

    def summary(self) -> dict[str, Any]:
        """Figures for `budget.json`."""
        figures = {
            name: getattr(self, name) for name in ("judged", "stopped", "unfit", "lost", "images", "images_seen")
        }
        return figures | {"kl_of_rule": round(self.kl_of_rule, 6), "kl_of_best": round(self.kl_of_best, 6)}


class Study:
    """A study, opened or begun.

    Args:
        task: what is searched.

    Raises:
        InputError: the rule's plan removes nothing, or the storage is something else.
        EnvironmentLackError: Optuna is not installed, or the storage cannot be opened.
    """

    def __init__(self, task: Task) -> None:
        if not task.frame.like.choosing:
            raise InputError("prune.search needs a budget that prunes; lower the target")
        self.task, self._optuna = task, need_optuna()
        with quiet(self._optuna):
            self._storage = open_storage(task.storage)
            self._study = self._optuna.create_study(storage=self._storage, study_name=task.name, load_if_exists=True)
        self._first = first_values(task.frame)
        self._me = Owner.here()

    def begin(self) -> int:
        """Queue the rule's plan in a new study; returns the plans that were judged before."""
        if not self._trials():
            self._study.enqueue_trial(dict(self._first), user_attrs={_RULE: True})
        return self.finished()

    def finished(self) -> int:
        """Plans that were judged, whether to the end or not."""
        return len(self._done())

    def left(self) -> int:
        """Plans that nobody has judged or is judging; what was lost is queued again first."""
        self.reclaim()
        return self.task.trials - self.finished() - len(self._trials("RUNNING"))

    def reclaim(self) -> None:
        """Fail trials whose judge is gone, and queue again what was failed and has no successor."""
        for trial in self._trials("RUNNING"):
            begun = None if trial.datetime_start is None else trial.datetime_start.timestamp()
            if is_lost(trial.user_attrs.get(_OWNER), begun):
                self._fail(trial.number)
        every = self._trials()
        followed = {trial.user_attrs.get(_AGAIN) for trial in every}
        for trial in every:
            tries = int(trial.user_attrs.get(_TRIES, 1))
            if trial.state.name == "FAIL" and trial.number not in followed and tries < TRIES:
                rule = {_RULE: True} if _RULE in trial.user_attrs else {}
                told = {_AGAIN: trial.number, _TRIES: tries + 1, **rule}
                self._study.enqueue_trial(dict(trial.params), user_attrs=told)

    def ask(self) -> tuple[Any, Budget | None] | None:
        """The next trial, which is this process's now, and its plan; None where the study has all of them."""
        left = self.left()
        if left <= 0:
            return None
        at = self.task.trials - left
        with quiet(self._optuna):
            # A sampler for each: what it draws depends on how many there were before, not on who asked for them.
            self._study.sampler = self._optuna.samplers.TPESampler(seed=_seed(self.task.seed, at))
            if at % 2 == 0 and not self._trials("WAITING"):
                self._queue_a_change(at)
            trial = self._study.ask()
            trial.set_user_attr(_OWNER, self._me.mark())
            values = propose(trial, self.task.frame)
        return trial, self._plan(values)

    def judge(self, trial: Any, budget: Budget | None, shards: Shards) -> None:
        """Judge a trial's plan, shard by shard, until a rung gives it up."""
        # Not this one's any more where somebody took this process for dead, and queued the trial again.
        with suppress(self._optuna.exceptions.UpdateFinishedTrialError):
            self._judge(trial, budget, shards)

    def _judge(self, trial: Any, budget: Budget | None, shards: Shards) -> None:
        state, values = self._optuna.trial.TrialState, np.empty(0)
        cut = Cut(len(self.task.source), self.task.largest)
        for index in range(len(cut.shards)) if budget is not None else ():
            trial.set_user_attr(_OWNER, self._me.mark())
            assert budget is not None
            values = np.append(values, shards.distances(budget, index))
            kl = float(values.mean())
            trial.report(kl, len(values))
            if self._gives_up(trial, kl, len(values), index + 1 in cut.rungs):
                self._tell(trial, state=state.PRUNED)
                return
        if budget is None:
            self._tell(trial, state=state.PRUNED)
        else:
            self._tell(trial, values=float(values.mean()))

    def standing(self) -> Standing:
        """What has come of it so far; at least the rule's plan was judged."""
        done, whole = self._done(), self._trials("COMPLETE")
        best = _best(whole)
        rule = next(trial for trial in whole if _RULE in trial.user_attrs)
        budget = self._plan(best.params)
        assert budget is not None, "it was judged"
        unfit = [trial for trial in done if trial.last_step is None]
        return Standing(
            budget=budget,
            judged=len(done),
            stopped=len(done) - len(whole) - len(unfit),
            unfit=len(unfit),
            lost=len(self._trials("FAIL")),
            images=sum(map(len, Cut(len(self.task.source), self.task.largest).shards)),
            images_seen=sum(trial.last_step or 0 for trial in self._trials()),
            kl_of_rule=rule.value,
            kl_of_best=best.value,
        )

    def _plan(self, values: Values) -> Budget | None:
        """The rule's plan is taken as it is, of which its numbers are a near copy."""
        return self.task.frame.like if dict(values) == self._first else budget_of(values, self.task.frame)

    def _queue_a_change(self, at: int) -> None:
        """Every other plan is a small change of the best one so far."""
        whole = self._trials("COMPLETE")
        if whole:
            drawn = np.random.default_rng((self.task.seed, at))
            self._study.enqueue_trial(changed(_best(whole).params, self.task.frame, drawn))

    def _gives_up(self, trial: Any, kl: float, images: int, at_a_rung: bool) -> bool:
        if not (self.task.halving and at_a_rung) or _RULE in trial.user_attrs:
            return False
        rivals = (other.intermediate_values.get(images) for other in self._done() if other.number != trial.number)
        return not survives(kl, [value for value in rivals if value is not None])

    def _tell(self, trial: Any, **what: Any) -> None:
        """Unless it is finished, see `judge`."""
        with quiet(self._optuna):
            self._study.tell(trial, skip_if_finished=True, **what)

    def _fail(self, number: int) -> None:
        with quiet(self._optuna):
            self._study.tell(number, state=self._optuna.trial.TrialState.FAIL, skip_if_finished=True)

    def _done(self) -> list[Any]:
        return self._trials("COMPLETE", "PRUNED")

    def _trials(self, *states: str) -> list[Any]:
        wanted = [self._optuna.trial.TrialState[state] for state in states] or None
        found: list[Any] = self._study.get_trials(deepcopy=False, states=wanted)
        return found


def _best(trials: Sequence[Any]) -> Any:
    return min(trials, key=lambda trial: (trial.value, trial.number))


def _seed(seed: int, at: int) -> int:
    return int(np.random.SeedSequence((seed, at)).generate_state(1)[0])


@contextmanager
def quiet(optuna: Any) -> Iterator[None]:
    """Optuna without its log, which a person did not ask for."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


class Trials:
    """In a worker: judges one plan a call. The images are read when the first one is judged."""

    def __init__(self, task: Task, study: Study | None = None) -> None:
        if task.threads is not None and study is None:
            torch.set_num_threads(task.threads)
        self._study = study or Study(task)

    @cached_property
    def _shards(self) -> Shards:
        task = self._study.task
        return Shards(task.model, task.source, Cut(len(task.source), task.largest))

    def __call__(self, item: int) -> int:
        """Ask for a plan and judge it; returns how many the study has by then. `item` only counts."""
        asked = self._study.ask()
        if asked is not None:
            self._study.judge(*asked, self._shards)
        return self._study.finished()


def search_by_study(
    task: Task,
    place: Place,
    progress: Callable[[int, int], None] = lambda done, of: None,
    note: Callable[[str], None] = lambda text: None,
    *,
    here: bool = True,
) -> Standing:
    """Judge plans until the study has all of its trials, wherever they are judged.

    Args:
        task: what is searched.
        place: where trials run.
        progress: called with (plans judged, trials).
        note: hears where a study goes on.
        here: whether `place` is this process, which opens the study once.

    Raises:
        InputError, EnvironmentLackError: see `Study`, and whatever `place` raises.
    """
    study = Study(task)
    before = study.begin()
    if before:
        note(f"the search goes on after {before} of {max(before, task.trials)} plans")
    make: Callable[[], Trials] = partial(Trials, task, study) if here else partial(Trials, task)
    while study.finished() < task.trials:
        left = study.left()
        if left <= 0:  # the last ones are judged by others
            time.sleep(POLL)
        for _, finished in place.map(make, range(max(0, left))):
            progress(min(finished, task.trials), task.trials)
    return study.standing()
