"""`vitrim profile`: a table of measured latencies, for targets that are milliseconds or a speed-up."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from timm import is_model

from ...calibration.tokens.latency import MeasuredLatency, fitted
from ...exporter.core.bounds import PROFILE_PROCESSES, PROFILE_ROUNDS, require_within
from ...exporter.core.inputs import is_file
from ...exporter.core.latency import FORMAT, PROCESSES, ROUNDS, FormTimes, LatencyTable
from ...exporter.core.memory import only_new_garbage
from ...exporter.core.targets import Target
from ...exporter.pruning.methods import DEFAULT
from ...exporter.pruning.shape import ViTShape, describe
from ...exporter.runtime.bench.apart import clock_of, measuring
from ...exporter.runtime.machine.environment import environment
from ..evaluation.pool import Processes
from .graphs import forms_for
from .listener import Listener, Silence
from .load import shipped
from .own_files import TABLE, check_file
from .profile_graphs import DENSE, ProfileGraphs, profile_graphs, reference_plans
from .recipe import Recipe
from .recover import open_model
from .tables import conditions_of, one_target

TOGETHER = 1 << 30  # bytes of weights that are loaded at once


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


@dataclass(frozen=True)
class Samples:
    """What several processes measured.

    Attributes:
        base: milliseconds of the graph that the others are held against.
        shares: by name, the others' ratio to it, of every process.
    """

    base: float
    shares: dict[str, np.ndarray]

    def milliseconds(self, name: str) -> float:
        """Of a graph: the median over the processes."""
        return self.base * float(np.median(self.shares[name]))

    @property
    def spread(self) -> float:
        """Typical distance of the quartiles over processes, as a share of the median."""
        quartiles = [np.subtract(*np.percentile(row, [75, 25])) / np.median(row) for row in self.shares.values()]
        return float(np.median(quartiles))


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
    shape = describe(model)
    named = list(methods) or [recipe.prune.method if recipe.prune and recipe.prune.method else DEFAULT]
    plans = {method: reference_plans(model, method, recipe.prune) for method in named}
    with tempfile.TemporaryDirectory(prefix="vitrim-") as folder:
        listener.stage("trace")
        batch, forms = recipe.export.batch, forms_for(target, recipe.export.attention)
        graphs = profile_graphs(model, target, batch, forms, plans, Path(folder), listener.progress)
        of = conditions_of(shape, target, recipe)
        del model
        listener.stage("profile")
        samples = measure(graphs, target, of.threads, processes, rounds, listener.progress)
    empty = LatencyTable(
        format=FORMAT,
        of=of,
        counts=graphs.counts,
        mlp=_row(graphs, samples, "mlp", forms[0]),
        forms={
            form: FormTimes(samples.milliseconds(f"{DENSE}.{form}"), _row(graphs, samples, "attention", form), {})
            for form in forms
        },
        clock=clock_of(of.threads, target.is_cpu),
        processes=processes,
        rounds=rounds,
        spread=round(samples.spread, 4),
        environment=environment(of.threads),
    )
    table = replace(empty, forms=_with_stages(empty, shape, graphs, samples))
    check_file(path, TABLE, reads, force)  # it has taken its time
    table.write(path)
    return table


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


def measure(
    graphs: ProfileGraphs,
    target: Target,
    threads: int,
    processes: int,
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    seed: int = 0,
) -> Samples:
    """Time graphs in several processes, as many at once as the memory takes, the dense one always among them."""
    base = f"{DENSE}.{graphs.forms[0]}"
    groups = list(in_groups(graphs.bytes, base))
    make = partial(measuring, base, target.name, threads, rounds)
    bases: list[float] = []
    shares: dict[str, list[float]] = {name: [] for name in graphs.files}
    for done in range(processes):
        for at, group in enumerate(groups):
            files = {name: str(graphs.files[name]) for name in group}
            ((_, (found, milliseconds)),) = Processes(1).map(make, [(seed + done, files)])  # a new one each time
            bases.append(milliseconds)
            for name, share in found.items():
                if name != base or at == 0:
                    shares[name].append(share)
            progress(done * len(groups) + at + 1, processes * len(groups))
    return Samples(float(np.median(bases)), {name: np.array(row) for name, row in shares.items()})


def in_groups(sizes: dict[str, int], base: str, together: int = TOGETHER) -> Iterator[list[str]]:
    """Names in groups whose graphs may be loaded at once, each with `base` first and at least one other."""
    group, room = [base], together - sizes[base]
    for name in (name for name in sizes if name != base):
        if sizes[name] > room and len(group) > 1:
            yield group
            group, room = [base], together - sizes[base]
        group.append(name)
        room -= sizes[name]
    yield group
