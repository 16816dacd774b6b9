"""What a token plan takes by a table of measured latencies: its blocks' halves, its stages, and what is left."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...exporter.core.errors import InputError
from ...exporter.core.latency import FormTimes, LatencyTable, StageCost
from ...exporter.pruning.budget import Budget
from ...exporter.pruning.work import Work, work_of
from .cost import Price, attention_macs

if TYPE_CHECKING:
    from ...exporter.pruning.shape import ViTShape

COUNTS = 6  # numbers of tokens that a table has on a processor
GPU_STEP = 8  # on a GPU latency has steps


def counts_for(tokens: int, least: int, on_cpu: bool) -> tuple[int, ...]:
    """Numbers of tokens to time: six on a processor, where time grows smoothly; else every multiple of eight.

    Args:
        tokens: all that there are; always among them.
        least: the fewest that the parts take.
    """
    if not on_cpu:
        return (*(count for count in range(GPU_STEP, tokens, GPU_STEP) if count >= least), tokens)
    return tuple(sorted({round(count) for count in np.linspace(least, tokens, COUNTS)}))


def same_attention(shape: ViTShape, block: int, work: Work) -> float:
    """Tokens of a whole attention half that costs as many multiply-accumulates as a block's own."""
    linear, square = shape.linear_macs[block][0], 2 * shape.attention_width[block]
    macs = attention_macs(shape, block, work)
    return (math.sqrt(linear * linear + 4 * square * macs) - linear) / (2 * square)


class MeasuredLatency:
    """Latencies of a model's plans, predicted.

    A plan takes what its blocks' halves take at their numbers of tokens, what its stages add, and a rest that does not
    depend on it: the dense graph's time less that of its halves. Between numbers that were timed lies a straight line,
    and no time falls as tokens grow. Of several attention forms the fastest counts, as an export takes it.

    Args:
        table: of the model.
        shape: of the model.
        correction: milliseconds that an export found missing, added to every pruned plan.
    """

    def __init__(self, table: LatencyTable, shape: ViTShape, correction: float = 0.0) -> None:
        self.table, self.shape, self.correction = table, shape, correction
        self._counts = np.array(table.counts, dtype=np.float64)
        self._mlp = np.maximum.accumulate(table.mlp)

    def milliseconds(self, budget: Budget) -> float:
        """What a plan's graph takes.

        Raises:
            InputError: the table does not know the plan's method.
        """
        times = (self._of_form(form, budget) for form in self.table.forms.values())
        return min(times) + (self.correction if budget.stages else 0.0)

    def price(self) -> Price:
        """Milliseconds as what a target is solved by."""
        return Price(self.milliseconds, "ms", 1.0, self.table.dense, self.table.dense)

    def without_stages(self, form: FormTimes, budget: Budget) -> float:
        """What a plan's graph takes in one attention form, but for what its stages add."""
        return form.dense + self._halves(form, budget) - self._halves(form, None)

    def _of_form(self, form: FormTimes, budget: Budget) -> float:
        if not budget.choosing:
            return self.without_stages(form, budget)
        if budget.method not in form.stages:
            raise InputError(
                f"prune.target.table does not know {budget.method} (it knows {', '.join(form.stages) or 'no method'}); "
                f"add it: vitrim profile ... --method {budget.method}"
            )
        cost = form.stages[budget.method]
        return self.without_stages(form, budget) + sum(cost.of(row.before) for row in budget.choosing)

    def _halves(self, form: FormTimes, budget: Budget | None) -> float:
        """All blocks' halves; the table has those of all blocks together."""
        depth, rising = self.shape.depth, np.maximum.accumulate(form.attention)
        works = [work_of(self.shape, budget, block) for block in range(depth)]
        attention = [same_attention(self.shape, block, work) for block, work in enumerate(works)]
        mlp = [work.mlp for work in works]
        total = np.interp(attention, self._counts, rising).sum() + np.interp(mlp, self._counts, self._mlp).sum()
        return float(total) / depth


def stage_cost(measured: Sequence[tuple[Budget, float]]) -> StageCost:
    """What a stage of a method adds, from what is left of measured graphs of it.

    The line of least squares through two plans or more, of one slope for all; neither part is below 0 unless the plans
    took less than their blocks do, which is told by a fixed part below 0.

    Args:
        measured: plans of one method, and the milliseconds that their graphs took beyond `without_stages`.
    """
    stages = np.array([len(budget.choosing) for budget, _ in measured], dtype=np.float64)
    tokens = np.array([sum(row.before for row in budget.choosing) for budget, _ in measured], dtype=np.float64)
    extra = np.array([milliseconds for _, milliseconds in measured])
    fixed, slope = 0.0, 0.0
    if np.ptp(tokens / stages) > 0:
        fixed, slope = (float(one) for one in np.linalg.lstsq(np.stack([stages, tokens], 1), extra, rcond=None)[0])
    if slope <= 0 or fixed < 0:
        only = tokens if fixed < 0 < slope and extra.min() > 0 else stages
        best = float(only @ extra / (only @ only))
        fixed, slope = (0.0, best) if only is tokens else (best, 0.0)
    return StageCost(fixed, slope)


def fitted(
    model: MeasuredLatency, measured: Mapping[str, Sequence[tuple[Budget, Mapping[str, float]]]]
) -> dict[str, FormTimes]:
    """The forms of a table with what stages cost in each.

    Args:
        model: of the table as it is without.
        measured: by method, plans and what their graphs took by form.
    """
    found = {}
    for name, form in model.table.forms.items():
        stages = {
            method: stage_cost([(plan, took[name] - model.without_stages(form, plan)) for plan, took in rows])
            for method, rows in measured.items()
        }
        found[name] = FormTimes(form.dense, form.attention, stages)
    return found
