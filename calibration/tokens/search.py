"""Search of a budget on the calibration images, by small changes that pay.

Nothing is trained, so a plan can simply be tried. From the rule's plan on, every small change at the same cost is
tried in turn. One that brings the outputs nearer to the dense model's (KL), by more than chance may make of it, is
taken, and made again as long as it pays. When none does, the changes get smaller. Nothing is drawn by chance, so a
search finds the same plan again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ...exporter.core.errors import InputError
from ...exporter.pruning.budget import Budget
from ...exporter.pruning.shape import ViTShape, describe
from ..images.reading import read_some
from ..images.sources import ImageSource, choose
from .cost import Price
from .judge import Judge
from .neighbours import Frame, Plan, moves

LARGEST = 256  # images that a plan is judged on; more would slow it without ranking plans better
COARSE, FINE = 12, 50  # parts of all patches that a trade moves at first and at last


@dataclass(frozen=True)
class SearchResult:
    """The best plan and how it was found."""

    budget: Budget
    judged: int
    kl_of_rule: float
    kl_of_best: float
    images: int
    images_seen: int

    def summary(self) -> dict[str, Any]:
        """Figures for `budget.json`."""
        return {
            "judged": self.judged,
            "images": self.images,
            "images_seen": self.images_seen,
            "kl_of_rule": round(self.kl_of_rule, 6),
            "kl_of_best": round(self.kl_of_best, 6),
        }


def search(
    model: Any,
    source: ImageSource,
    start: Budget,
    limit: float,
    trials: int,
    progress: Callable[[int, int], None] | None = None,
    batch: int = 32,
    price: Price | None = None,
    shape: ViTShape | None = None,
) -> SearchResult:
    """Look for a better budget at the same cost.

    Args:
        model: the dense model.
        source: calibration images, of which at most `LARGEST`, spread evenly over them, are used.
        start: the rule's budget; the tokens of all others are multiples as its are, see `solve.from_target`.
        limit: cost that no plan may pass.
        trials: plans to judge at most; fewer where no change pays any more.
        progress: called with (plans judged, trials).
        batch: images per forward pass.
        price: what plans cost; None: multiply-accumulates.
        shape: what plans must fit and are costed by; None: the model's.

    Returns:
        the plan with the smallest divergence from the dense outputs; the rule's own if none is better.

    Raises:
        InputError: the budget removes nothing.
    """
    if not start.choosing:
        raise InputError("prune.search needs a budget that prunes; lower the target")
    images = torch.from_numpy(read_some(source, choose(len(source), count=LARGEST)))
    judge = Judge(model, images, start, batch)
    of_rule = judge.kl
    frame = Frame(shape or describe(model), start, limit, start.statistics.get("multiple", 1), price)
    climb = Climb(judge, frame, trials, progress)
    for step in steps(frame):
        while climb.sweep(step):
            pass
    return SearchResult(judge.best, climb.judged, of_rule, judge.kl, len(images), judge.seen)


def steps(frame: Frame) -> list[int]:
    """Patches that trades move: a part of all, then half as many, down to a few; multiples as the tokens are."""
    found = [max(1, round(frame.patches / COARSE / frame.multiple)) * frame.multiple]
    while found[-1] // 2 >= max(frame.patches / FINE, frame.multiple):
        found.append(found[-1] // 2 // frame.multiple * frame.multiple)
    return found


class Climb:
    """A walk from plan to better plan.

    Args:
        judge: of the plans; its best one is where the walk stands.
        frame: what all plans have in common.
        trials: plans to judge at most.
        progress: called with (plans judged, trials).

    Attributes:
        judged: plans so far, the first one left out.
    """

    def __init__(
        self, judge: Judge, frame: Frame, trials: int, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.judged = 0
        self._judge, self._frame, self._trials, self._progress = judge, frame, trials, progress
        self._plan = frame.first()
        self._tried = {self._plan}

    def sweep(self, step: int) -> bool:
        """Try every change of the plan once, and again as long as it pays.

        Returns:
            whether one paid, and there are plans left to judge.
        """
        better = False
        for move in moves(self._plan, self._frame):
            while self._take(self._frame.apply(move, self._plan, step)):
                better = True
        return better and self.judged < self._trials

    def _take(self, plan: Plan | None) -> bool:
        """Go to a plan if it is new and better."""
        if plan is None or plan in self._tried or self.judged >= self._trials:
            return False
        self._tried.add(plan)
        budget = self._frame.budget(plan)
        found = self._judge.judge(budget)
        self.judged += 1
        if self._progress:
            self._progress(self.judged, self._trials)
        if found is None or not self._judge.is_better(found):
            return False
        self._judge.take(budget, found)
        self._plan = plan
        return True
