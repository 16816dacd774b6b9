"""What a token plan takes by a table of measured latencies: its blocks' halves, its stages, and what is left."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ...exporter.core.errors import InputError
from ...exporter.core.latency import FormTimes, LatencyTable
from ...exporter.core.loads import Load, without_stages
from ...exporter.core.targets import get_target
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
        self._early = not get_target(table.of.target).compares
        self._dense = load_of(shape, None)

    def milliseconds(self, budget: Budget) -> float:
        """What a plan's graph takes.

        Raises:
            InputError: the table does not know the plan's method.
        """
        load = load_of(self.shape, budget, self._early)
        times = (self._of_form(form, load, budget.method) for form in self.table.forms.values())
        return min(times) + (self.correction if budget.stages else 0.0)

    def require(self, method: str) -> None:
        """Refuse a method whose stages the table does not know.

        Raises:
            InputError: with those that it knows.
        """
        for form in self.table.forms.values():
            if method not in form.stages:
                raise InputError(
                    f"prune.target.table does not know {method} (it knows {', '.join(form.stages) or 'no method'}); "
                    f"add it: vitrim profile ... --method {method}"
                )

    def price(self) -> Price:
        """Milliseconds as what a target is solved by."""
        return Price(self.milliseconds, "ms", 1.0, self.table.dense, self.table.dense)

    def _of_form(self, form: FormTimes, load: Load, method: str) -> float:
        plain = without_stages(self.table, form, load, self._dense)
        if not load.before:
            return plain
        self.require(method)
        return plain + sum(form.stages[method].of(before) for before in load.before)


def load_of(shape: ViTShape, budget: Budget | None, early: bool = True) -> Load:
    """What a plan asks of the halves of a model's blocks; without a budget, that of the dense graph.

    Args:
        shape: of the model.
        budget: that fits it.
        early: whether stages of its graph leave out what goes as soon as they can, see `exporter.pruning.work`.
    """
    works = [work_of(shape, budget, block, early) for block in range(shape.depth)]
    return Load(
        attention=tuple(same_attention(shape, block, work) for block, work in enumerate(works)),
        mlp=tuple(float(work.mlp) for work in works),
        before=() if budget is None else tuple(row.before for row in budget.choosing),
    )
