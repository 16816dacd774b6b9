"""Latency predicted by a table, and measured, for graphs that the table never saw.

    python benchmarks/latency.py --cache .latency

A table of DeiT-Ti (onnxruntime on the CPU, batch 1, one thread) is made as `vitrim profile` makes it: halves of the
blocks at six numbers of tokens, and of every method two plans at 0.55 and 0.8 of the cost. Then plans at other costs
and with other numbers of stages are predicted, and measured: in turns with each other and with the dense graph, as
shares of it in the same round, in processor time, in processes of their own. Random weights: latency does not depend
on them. What was measured is kept in the cache, so a stopped run goes on. Written to benchmarks/results/latency.md.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from measure import Row, budget_of, kept_file, kept_json, plan_of, tokens_of

from vitrim.calibration.tokens.cost import LatencyModel, dense_plan, graph_macs, model_macs, total_macs
from vitrim.calibration.tokens.latency import MeasuredLatency
from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.core.latency import LatencyTable, StageCost, read_table
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.pruning.budget import Budget
from vitrim.exporter.pruning.load import create_model
from vitrim.exporter.pruning.parts import HALVES
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.runtime.bench.profile import DENSE
from vitrim.exporter.runtime.bench.turns import Samples, measure
from vitrim.recipes.profile.graphs import ProfileGraphs, profile_graphs
from vitrim.recipes.profile.run import profile
from vitrim.recipes.schema.load import recipe_from

METHODS = ("frugal", "ppt", "tome", "zero_tprune", "evit")
# Shares of the dense cost, and stages (None: as the method has it).
PLANS = ((0.5, None), (0.62, 2), (0.7, 4), (0.9, None))
FORMS = ("decomposed", "fused")
BASE = f"{DENSE}.{FORMS[0]}"
RESULT = Path(__file__).parent / "results" / "latency.md"


@click.command()
@click.option("--model", "name", default="deit_tiny_patch16_224", show_default=True)
@click.option("--processes", default=10, show_default=True, help="Of the table, and as many of the graphs.")
@click.option("--rounds", default=12, show_default=True, help="Of each process.")
@click.option("--cache", type=click.Path(path_type=Path), required=True, help="Folder of what was measured.")
@click.option("-o", "--out", type=click.Path(path_type=Path), default=RESULT, show_default=True)
def main(name: str, processes: int, rounds: int, cache: Path, out: Path) -> None:
    """Make the table, measure the graphs, and write how far apart they are."""
    cache.mkdir(parents=True, exist_ok=True)
    recipe = recipe_from(
        {
            "model": {"name": name, "random": 0},
            "images": {"generator": "noise", "count": 1},
            "prune": {"target": {"flops_ratio": 0.7}},
            "bench": {"threads": 1},
        }
    )
    path = cache / f"table-{name}-{processes}-{rounds}.json"
    if not path.exists():
        profile(recipe, path, METHODS, processes=processes, rounds=rounds)
    table = read_table(str(path))
    model = create_model(name, random=0)
    shape = describe(model)
    macs = model_macs(shape, dense_plan(shape))
    plans = {
        method: tuple(budget_of(shape, Row(method, method, stages=stages), share * macs) for share, stages in PLANS)
        for method in METHODS
    }
    samples = seen(model, plans, processes, rounds, cache)
    atomic_write(out, page(table, shape, plans, samples, processes, rounds))


def seen(model: Any, plans: dict[str, tuple[Budget, ...]], processes: int, rounds: int, cache: Path) -> Samples:
    """The plans' graphs measured, each process kept for itself."""
    target, graphs = get_target("ort-cpu"), None
    kept = []
    for seed in range(1000, 1000 + processes):
        what = {key: [plan_of(plan) for plan in own] for key, own in plans.items()}
        file = kept_file(cache, ".json", kind="seen", plans=what, rounds=rounds, seed=seed)
        if not file.exists() and graphs is None:
            graphs = made(model, plans, cache / "graphs")

        def one(graphs: ProfileGraphs | None = graphs, seed: int = seed) -> dict[str, Any]:
            assert graphs is not None
            found = measure(graphs.files, BASE, target, 1, 1, rounds, seed=seed)
            return {"base": found.base, "shares": {key: float(row[0]) for key, row in found.shares.items()}}

        kept.append(kept_json(file, one))
        click.echo(f"process {len(kept)} of {processes}")
    shares = {key: np.array([row["shares"][key] for row in kept]) for key in kept[0]["shares"]}
    return Samples(float(np.median([row["base"] for row in kept])), shares)


def made(model: Any, plans: dict[str, tuple[Budget, ...]], folder: Path) -> ProfileGraphs:
    """The plans' graphs and the dense one."""
    graphs = profile_graphs(model, get_target("ort-cpu"), 1, FORMS, plans, folder)
    return replace(graphs, files={key: file for key, file in graphs.files.items() if not key.startswith(HALVES)})


def page(
    table: LatencyTable,
    shape: Any,
    plans: dict[str, tuple[Budget, ...]],
    samples: Samples,
    processes: int,
    rounds: int,
) -> str:
    """The result, with every row and the errors of three predictors."""
    latency = MeasuredLatency(table, shape)
    free = dict.fromkeys(plans, StageCost(0.0, 0.0))
    bare = replace(table, forms={key: replace(form, stages=free) for key, form in table.forms.items()})
    without, formula = MeasuredLatency(bare, shape), LatencyModel.for_batch(1)
    dense = np.min([samples.shares[f"{DENSE}.{form}"] for form in FORMS], axis=0)
    rows, errors = [], []
    for method, own in plans.items():
        for at, (plan, (share, _)) in enumerate(zip(own, PLANS, strict=True)):
            each = np.min([samples.shares[f"{method}.{at}.{form}"] for form in FORMS], axis=0) / dense
            got, low, high = float(np.median(each)), *np.percentile(each, [25, 75])
            macs = total_macs(shape, plan) / graph_macs(shape)
            guesses = [
                latency.milliseconds(plan) / table.dense,
                without.milliseconds(plan) / table.dense,
                formula.intercept + formula.slope * macs,
            ]
            errors.append([guess / got - 1 for guess in guesses])
            tokens = tokens_of(plan.choosing)
            cells = [method, f"{share:.2f}", tokens, f"{guesses[0]:.4f}", f"{got:.4f}", f"{low:.4f} to {high:.4f}"]
            rows.append(f"| {' | '.join([*cells, *(f'{100 * one:+.1f}' for one in errors[-1])])} |")
    return _text(table, rows, np.array(errors), samples, processes, rounds)


def _text(
    table: LatencyTable, rows: list[str], errors: np.ndarray, samples: Samples, processes: int, rounds: int
) -> str:
    rms, worst, mean = np.sqrt((errors**2).mean(0)), np.abs(errors).max(0), errors.mean(0)
    names = ("the table", "the table without its stages' cost", "the formula that stands in for a table")
    found = "\n".join(
        f"| {name} | {100 * one:.1f} | {100 * two:.1f} | {100 * three:+.1f} |"
        for name, one, two, three in zip(names, rms, worst, mean, strict=True)
    )
    where = table.environment
    return f"""# Latency: predicted and measured

    {shlex.join(["python", *sys.argv])}

{table.of.model}, {table.of.runtime}, {table.of.target}, batch 1, one thread, on {table.of.device}
({where["cores"]} cores, {where["platform"]}). {len(rows)} graphs that the table never saw.

| predicted by | rms, % | worst, % | mean, % |
| --- | --- | --- | --- |
{found}

Shares are of the dense graph in the same round; `measured` is the median over {processes} processes
of {rounds} rounds each, with its quartiles over processes. The table has as many processes of its own.
The last three columns are what the predictors are off by, in percent, in the order of the table above.

| method | cost | tokens after stages | predicted | measured | quartiles | table | no stages | formula |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

The noise: the machine ran other work meanwhile ({where["other_cores"]} of {where["cores"]} cores when the table was
finished), so times are of the processor, which other programs do not lengthen, but which their use of caches and memory
does. The quartiles of one graph over processes lie {100 * table.spread:.1f} % apart in the table and
{100 * samples.spread:.1f} % in what was measured (median over graphs).
"""


if __name__ == "__main__":
    main()
