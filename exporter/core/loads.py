"""What a token plan asks of a model's blocks, and what that takes by a latency table: all that a device has to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .latency import FormTimes, LatencyTable, StageCost
from .records import Record


@dataclass(frozen=True)
class Load(Record):
    """What a plan asks of the halves of a model's blocks, and of its stages.

    Attributes:
        attention: by block, tokens of a whole attention half that is as much work as the block's own.
        mlp: by block, tokens in its MLP.
        before: by stage that chooses patches, tokens that enter it.
    """

    attention: tuple[float, ...]
    mlp: tuple[float, ...]
    before: tuple[int, ...] = ()


def halves_of(table: LatencyTable, form: FormTimes, load: Load) -> float:
    """Milliseconds of all blocks' halves: straight lines between the counts, and no time falls as tokens grow.

    A table has the halves of all blocks together, so each of a load's blocks counts as one of as many.
    """
    attention = np.interp(load.attention, table.counts, np.maximum.accumulate(form.attention))
    mlp = np.interp(load.mlp, table.counts, np.maximum.accumulate(table.mlp))
    return float(attention.sum() + mlp.sum()) / len(load.mlp)


def without_stages(table: LatencyTable, form: FormTimes, load: Load, dense: Load) -> float:
    """Milliseconds of a plan's graph in one attention form, but for what its stages add.

    Args:
        table, form: of the model.
        load: of the plan.
        dense: of the plan that removes nothing.
    """
    return form.dense + halves_of(table, form, load) - halves_of(table, form, dense)


def stage_cost(measured: Sequence[tuple[Load, float]]) -> StageCost:
    """What a stage of a method adds, from what is left of measured graphs of it.

    The line of least squares through two plans or more, of one slope for all; neither part is below 0 unless the plans
    took less than their blocks do, which is told by a fixed part below 0.

    Args:
        measured: loads of plans of one method, and the milliseconds that their graphs took beyond `without_stages`.
    """
    stages = np.array([len(load.before) for load, _ in measured], dtype=np.float64)
    tokens = np.array([sum(load.before) for load, _ in measured], dtype=np.float64)
    extra = np.array([milliseconds for _, milliseconds in measured])
    fixed, slope = 0.0, 0.0
    if np.ptp(tokens / stages) > 0:
        fixed, slope = (float(one) for one in np.linalg.lstsq(np.stack([stages, tokens], 1), extra, rcond=None)[0])
    if slope <= 0 or fixed < 0:
        only = tokens if fixed < 0 < slope and extra.min() > 0 else stages
        best = float(only @ extra / (only @ only))
        fixed, slope = (0.0, best) if only is tokens else (best, 0.0)
    return StageCost(fixed, slope)


def with_stages(
    table: LatencyTable, dense: Load, measured: Mapping[str, Sequence[tuple[Load, Mapping[str, float]]]]
) -> LatencyTable:
    """A table with what stages cost in each form, from measured plans.

    Args:
        table: as it is without.
        dense: load of the plan that removes nothing.
        measured: by method, loads of plans, and what their graphs took by form.
    """
    forms = {}
    for name, form in table.forms.items():
        stages = {
            method: stage_cost([(load, took[name] - without_stages(table, form, load, dense)) for load, took in rows])
            for method, rows in measured.items()
        }
        forms[name] = replace(form, stages=stages)
    return replace(table, forms=forms)
