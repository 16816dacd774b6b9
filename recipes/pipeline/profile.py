"""`vitrim profile`: a table of measured latencies, for targets that are milliseconds or a speed-up."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from timm import is_model

from ...calibration.tokens.latency import MeasuredLatency, fitted
from ...exporter.core.bounds import PROFILE_PROCESSES, PROFILE_ROUNDS, require_within
from ...exporter.core.inputs import is_file
from ...exporter.core.latency import FORMAT, PROCESSES, ROUNDS, Conditions, FormTimes, LatencyTable
from ...exporter.core.memory import only_new_garbage
from ...exporter.pruning.methods import DEFAULT
from ...exporter.pruning.shape import ViTShape, describe
from ...exporter.runtime.bench.apart import clock_of
from ...exporter.runtime.machine.environment import environment
from .graphs import forms_for
from .listener import Listener, Silence
from .load import shipped
from .own_files import TABLE, check_file
from .profile_graphs import DENSE, ProfileGraphs, profile_graphs, reference_plans
from .recipe import Recipe
from .recover import open_model
from .tables import conditions_of, one_target
from .turns import Samples, measure


def as_recipe(source: Any) -> Any:
    """What names a recipe as it is; timm's name of a model as plain data, with random weights: they take as long."""
    if not isinstance(source, (str, os.PathLike)):
        return source
    name = os.fspath(source)
    if is_file(Path(name)) or name in shipped() or not is_model(name.partition(".")[0]):
        return source
    return {
        "model": {"name": name.partition(".")[0], "random": 0},
        "images": {"generator": "noise", "count": 1},
        "prune": {"target": {"flops_ratio": 0.7}},
    }


@only_new_garbage()
def profile(
    recipe: Recipe,
    out: str | os.PathLike[str],
    methods: Sequence[str] = (),
    *,
    processes: int = PROCESSES,
    rounds: int = ROUNDS,
    listener: Listener | None = None,
    force: bool = False,
) -> LatencyTable:
    """Measure a table and write it.

    Args:
        recipe: its `model`, `prune`, `export` and `bench.threads` matter; it needs no images.
        out: the .json to write; a table that is there is replaced.
        methods: whose stages are measured; none: the recipe's own, or else the best measured.
        processes: everything is loaded anew in so many; the table has the medians over them.
        rounds: of each.
        listener: hears progress.
        force: replace any other plain file, too.

    Raises:
        InputError: the recipe's target, precision or slimming has no table.
        EnvironmentLackError: the target's runtime does not run here.
    """
    path, listener = Path(out), listener or Silence()
    require_within("processes", processes, *PROFILE_PROCESSES)
    require_within("rounds", rounds, *PROFILE_ROUNDS)
    target = one_target(recipe)
    reads = recipe.model_copy(update={"prune": None}).within(recipe.folder, recipe.file)  # not the table that it names
    check_file(path, TABLE, reads, force, listener)
    listener.stage("model")
    model = open_model(recipe, note=listener.note)
    named = list(methods) or [recipe.prune.method if recipe.prune and recipe.prune.method else DEFAULT]
    plans = {method: reference_plans(model, method, recipe.prune) for method in named}
    with tempfile.TemporaryDirectory(prefix="vitrim-") as folder:
        listener.stage("trace")
        batch, forms = recipe.export.batch, forms_for(target, recipe.export.attention)
        graphs = profile_graphs(model, target, batch, forms, plans, Path(folder), listener.progress)
        shape = describe(model)
        del model
        listener.stage("profile")
        of, base = conditions_of(shape, target, recipe), f"{DENSE}.{forms[0]}"
        count = (of.threads, processes, rounds)
        samples = measure(graphs.files, base, target, *count, listener.progress, sizes=graphs.bytes)
    table = _table(of, clock_of(of.threads, target.is_cpu), graphs, samples, processes, rounds)
    table = replace(table, forms=_with_stages(table, shape, graphs, samples))
    check_file(path, TABLE, reads, force)  # it has taken its time
    table.write(path)
    return table


def _table(
    of: Conditions,
    clock: Literal["processor", "wall"],
    graphs: ProfileGraphs,
    samples: Samples,
    processes: int,
    rounds: int,
) -> LatencyTable:
    """A table that knows no stage's cost yet."""
    forms = {
        form: FormTimes(samples.milliseconds(f"{DENSE}.{form}"), _row(graphs, samples, "attention", form), {})
        for form in graphs.forms
    }
    return LatencyTable(
        format=FORMAT,
        of=of,
        counts=graphs.counts,
        mlp=_row(graphs, samples, "mlp", graphs.forms[0]),
        forms=forms,
        clock=clock,
        processes=processes,
        rounds=rounds,
        spread=round(samples.spread, 4),
        environment=environment(of.threads),
    )


def _row(graphs: ProfileGraphs, samples: Samples, half: str, form: str) -> tuple[float, ...]:
    return tuple(samples.milliseconds(f"{half}.{count}.{form}") for count in graphs.counts)


def _with_stages(empty: LatencyTable, shape: ViTShape, graphs: ProfileGraphs, samples: Samples) -> dict[str, FormTimes]:
    """The forms with what stages of every method cost."""
    took = {
        method: [
            (plan, {form: samples.milliseconds(f"{method}.{at}.{form}") for form in graphs.forms})
            for at, plan in enumerate(plans)
        ]
        for method, plans in graphs.plans.items()
    }
    return fitted(MeasuredLatency(empty, shape), took)
