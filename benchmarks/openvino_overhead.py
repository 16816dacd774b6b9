"""What pruning stages cost in OpenVINO in bfloat16: pruned over floor, and the layers that take the time.

    taskset -c 0 python benchmarks/openvino_overhead.py --batches 1 --batches 8

Random weights: latency does not depend on them. Graphs as an export with `target: openvino` and `precision: bf16` has
them, one thread. Sessions are compiled anew several times, because one compiled graph may be 2 % faster than the next
of the same file; the floor runs twice, as a control. Ratios are of processor time, which other work on the machine
moves less than the clock; both are given. Written to benchmarks/results/openvino_overhead.md, row by row.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import openvino
from measure import Row, budget_of

from vitrim.calibration.tokens.cost import graph_macs
from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.decisions import without_decisions
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.precision.float32_nodes import wide_nodes
from vitrim.exporter.graph.precision.half import to_half
from vitrim.exporter.graph.shapes import with_shapes
from vitrim.exporter.graph.surgery import import_graph
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.load import create_model
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.whole import deployable
from vitrim.recipes.stages.kinds import KINDS, budget_of_kind

METHODS = ("evit", "frugal", "zero_tprune", "ppt", "tome@3", "tofu@3", "ats")
CONTROL = "floor again"
SETTINGS = {"INFERENCE_PRECISION_HINT": "dynamic", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
DRAWS = 2000  # of a bootstrap
WARMED = 3  # runs of every session that are not counted
# Layers by what they are for. Attention is a Subgraph where OpenVINO keeps it one, else products and a softmax.
GROUPS = {
    "projections": ("FullyConnected", "Convolution", "MVN"),
    "products": ("MatMul", "Softmax"),
    "TopK": ("TopK",),
    "elementwise": ("Subgraph", "Eltwise", "Reduce", "Math", "CumSum"),
}


@click.command()
@click.option("--model", "name", default="deit_small_patch16_224", show_default=True)
@click.option("--ratio", default=0.65, show_default=True, help="Share of the dense model's GMACs.")
@click.option("--batches", default=(1, 8), multiple=True, type=int, show_default=True)
@click.option("--methods", default=METHODS, multiple=True, help="`tome@3`: with three stages.", show_default=True)
@click.option("--sessions", default=10, show_default=True, help="How often all graphs are compiled.")
@click.option("--rounds", default=10, show_default=True, help="Interleaved rounds of each.")
@click.option("--graphs", default=Path("graphs"), type=click.Path(path_type=Path), help="Where graphs are kept.")
@click.option("--out", default=Path("benchmarks/results/openvino_overhead.md"), type=click.Path(path_type=Path))
def main(
    name: str,
    ratio: float,
    batches: tuple[int, ...],
    methods: tuple[str, ...],
    sessions: int,
    rounds: int,
    graphs: Path,
    out: Path,
) -> None:
    """Measure and write the table."""
    columns = ["method", "batch", "speed-up", "overhead", "by the clock", "control", "ms", "layers", *GROUPS, "moves"]
    lines = [f"`python {shlex.join(sys.argv)}`", "", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    core = openvino.Core()
    for batch in batches:
        for method in methods:
            models = typed_graphs(name, method, ratio, batch, graphs)
            image = np.random.default_rng(0).standard_normal(tuple(core.read_model(models["dense"]).input(0).shape))
            image = image.astype(np.float32)
            cpu, wall = timed(core, models, image, sessions, rounds)
            counted = counters(core, {kind: models[kind] for kind in KINDS[1:]}, image, 100 if batch == 1 else 25)
            cells = [
                interval(cpu["dense"], cpu["pruned"]),
                interval(cpu["pruned"], cpu["floor"]),
                interval(wall["pruned"], wall["floor"]),
                interval(cpu[CONTROL], cpu["floor"]),
                "/".join(f"{np.median(cpu[kind]):.2f}" for kind in KINDS),
                "/".join(str(counted[kind][1]) for kind in counted),
                *shares(counted["pruned"][0], counted["floor"][0]),
            ]
            lines.append(f"| {method} | {batch} | {' | '.join(cells)} |")
            click.echo(lines[-1])
            atomic_write(out, "\n".join(lines) + "\n")
    cpu_name = core.get_property("CPU", "FULL_DEVICE_NAME")
    lines += ["", f"{name} at {ratio} of the GMACs, random weights. ms: dense/pruned/floor, processor time; layers:"]
    lines += [
        "that ran, pruned/floor; then shares of their time by OpenVINO's counters, pruned/floor. Elementwise holds"
    ]
    lines += [
        f"the attentions that OpenVINO keeps one kernel. OpenVINO {openvino.__version__} on {cpu_name}, one thread."
    ]
    atomic_write(out, "\n".join(lines) + "\n")


def typed_graphs(name: str, method: str, ratio: float, batch: int, folder: Path) -> dict[str, bytes]:
    """Serialized bf16 graphs by kind; float32 ones are kept, as `METHOD.KIND.BATCH.onnx`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {k: folder / f"{method if k != 'dense' else name}.{k}.{batch}.onnx" for k in KINDS}
    target, model, plan = get_target("openvino"), None, None
    for kind, path in paths.items():
        if path.exists():
            continue
        if model is None:
            model = create_model(name, random=0)
            shape, (title, _, stages) = describe(model), method.partition("@")
            row = Row(title, title, stages=int(stages) if stages else None)
            plan = budget_of(shape, row, ratio * graph_macs(shape))
        budget = None if kind == "dense" else budget_of_kind(kind, plan)
        graph, _ = rewrite(trace(deployable(model, budget), batch), target, precision="bf16")
        onnx.save(without_decisions(graph)[0], path)
    typed = {}
    for kind, path in paths.items():
        graph = with_shapes(onnx.load(path))
        wide = wide_nodes(import_graph(graph), "bf16" in target.inner_float32)
        typed[kind] = to_half(graph, "bf16", wide).model.SerializeToString()
    return typed


def timed(
    core: Any, models: Mapping[str, bytes], image: np.ndarray, sessions: int, rounds: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Processor and wall milliseconds [sessions, rounds] of every graph, interleaved, and of the floor once more."""
    files = {**models, CONTROL: models["floor"]}
    cpu = {kind: np.empty((sessions, rounds)) for kind in files}
    wall = {kind: np.empty((sessions, rounds)) for kind in files}
    order = np.random.default_rng(0)
    for session in range(sessions):
        requests = {}
        for kind in order.permutation(list(files)):  # what is compiled first lies elsewhere in memory
            compiled = core.compile_model(core.read_model(files[kind]), "CPU", SETTINGS)
            requests[kind] = compiled.create_infer_request()
            for _ in range(WARMED):
                requests[kind].infer({0: image})
        for index in range(rounds):
            for kind in order.permutation(list(files)):
                began, spent = time.perf_counter(), time.process_time()
                requests[kind].infer({0: image})
                cpu[kind][session, index] = (time.process_time() - spent) * 1e3
                wall[kind][session, index] = (time.perf_counter() - began) * 1e3
    return cpu, wall


def interval(numerator: np.ndarray, denominator: np.ndarray) -> str:
    """Mean over sessions of the median ratio of each, with its 95 % interval: sessions are drawn, not rounds.

    Args:
        numerator, denominator: [sessions, rounds] milliseconds.
    """
    ratios = np.median(numerator / denominator, axis=1)
    drawn = np.random.default_rng(0).choice(ratios, (DRAWS, len(ratios))).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{ratios.mean():.3f} ({low:.3f} to {high:.3f})"


def counters(
    core: Any, models: Mapping[str, bytes], image: np.ndarray, runs: int
) -> dict[str, tuple[dict[str, float], int]]:
    """Of every graph, the share of its time by group of layers, and how many layers ran.

    A counter is the mean of all runs. What else the machine does meets every layer as often as it is long, so shares
    hold where milliseconds do not.
    """
    found = {}
    for kind, model in models.items():
        settings = {**SETTINGS, "PERF_COUNT": True}
        request = core.compile_model(core.read_model(model), "CPU", settings).create_infer_request()
        for _ in range(runs):
            request.infer({0: image})
        sums: dict[str, float] = defaultdict(float)
        ran = [layer for layer in request.profiling_info if "NOT_RUN" not in str(layer.status)]
        for layer in ran:
            sums[group_of(layer.node_type)] += layer.real_time.total_seconds()
        found[kind] = ({group: spent / sum(sums.values()) for group, spent in sums.items()}, len(ran))
    return found


def group_of(kind: str) -> str:
    """The group of a type of layers."""
    return next((name for name, kinds in GROUPS.items() if kind.startswith(kinds)), "moves")


def shares(pruned: Mapping[str, float], floor: Mapping[str, float]) -> list[str]:
    """By group, its share of the pruned graph's time and of the floor's."""
    return [f"{pruned.get(name, 0):.1%}/{floor.get(name, 0):.1%}" for name in (*GROUPS, "moves")]


if __name__ == "__main__":
    main()
