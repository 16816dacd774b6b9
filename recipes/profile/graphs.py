"""The graphs that a latency table is measured on: halves of the blocks, the dense graph, and pruned ones of methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from ...calibration.tokens.cost import dense_plan, model_macs
from ...calibration.tokens.latency import counts_for
from ...calibration.tokens.rules import default_rule
from ...calibration.tokens.solve import from_target
from ...exporter.core.errors import InputError
from ...exporter.core.targets import Target
from ...exporter.graph.files import read_bare
from ...exporter.graph.passes.rewrite import rewrite
from ...exporter.graph.store import WeightStore
from ...exporter.graph.tokens import with_tokens
from ...exporter.graph.trace import trace_free_into, trace_into
from ...exporter.graph.weights import size_of
from ...exporter.pruning.budget import Budget
from ...exporter.pruning.methods import get_method
from ...exporter.pruning.methods.options import parse_parameters
from ...exporter.pruning.parts import HALVES, Halves
from ...exporter.pruning.shape import describe
from ...exporter.pruning.whole import deployable
from ...exporter.runtime.bench.profile import DENSE
from ..schema.sections.prune import PruneSection
from ..stages.kinds import without_stages

SHARES = (0.55, 0.8)  # of the dense cost, that a method's stages are measured at


@dataclass(frozen=True)
class ProfileGraphs:
    """Graphs for a target, by name.

    Attributes:
        folder: where they lie.
        files: `<half>.<tokens>.<form>`, `dense.<form>` and `<method>.<number>.<form>`.
        bytes: of each, what it loads.
        counts: numbers of tokens.
        forms: of attention.
        plans: by method, the plans whose graphs are numbered.
    """

    folder: Path
    files: dict[str, Path]
    bytes: dict[str, int]
    counts: tuple[int, ...]
    forms: tuple[str, ...]
    plans: dict[str, tuple[Budget, ...]]


def reference_plans(model: Any, method: str, prune: PruneSection | None = None) -> tuple[Budget, ...]:
    """Plans of a method at `SHARES` of the dense cost, those that it can reach.

    Args:
        model: whose tokens go.
        method: its name.
        prune: a recipe's section; where it is of this method, its parameters and stages are taken.

    Raises:
        InputError: none can be reached.
    """
    shape, own = describe(model), prune if prune is not None and prune.method in (None, method) else None
    given = {} if own is None else dict(own.parameters)
    parameters = parse_parameters(get_method(method), given, "prune.parameters").model_dump(mode="json")
    rule = default_rule(
        shape,
        method,
        parameters,
        blocks=None if own is None else own.blocks,
        stages=None if own is None else own.stages,
        iterations=None if own is None else own.iterations,
        final=own is None or own.final,
    )
    found, macs, why = [], model_macs(shape, dense_plan(shape)), None
    for share in SHARES:
        try:
            found.append(from_target(shape, method, parameters, share * macs, rule))
        except InputError as error:
            why = error
    if why is not None and not found:
        raise why
    return tuple(found)


def profile_graphs(
    model: Any,
    target: Target,
    batch: int,
    forms: tuple[str, ...],
    plans: Mapping[str, tuple[Budget, ...]],
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ProfileGraphs:
    """Trace and rewrite everything that a table is measured on, all with the weights in shared files.

    Args:
        model: a supported timm model.
        target: whose passes run.
        batch: of every graph.
        forms: of attention, `decomposed` first.
        plans: by method.
        folder: where the graphs go.
        progress: called with (graphs traced, graphs).
    """
    counts = _trace(model, target, batch, plans, folder / "traced", progress)
    files: dict[str, Path] = {}
    sizes: dict[str, int] = {}
    with WeightStore(folder / "rewritten") as store:
        for path in sorted((folder / "traced").glob("*.onnx")):
            bare, weights = read_bare(path)
            for name, graph in _at_counts(path.stem, bare, counts):
                for form in forms if path.stem != "mlp" else forms[:1]:
                    made, _ = rewrite(graph, target, fused_attention=form == "fused", weights=weights)
                    key = f"{name}.{form}"
                    store.save(made, f"{key}.onnx", weights)
                    files[key] = folder / "rewritten" / f"{key}.onnx"
                    sizes[key] = sum(map(size_of, made.graph.initializer))
    return ProfileGraphs(folder / "rewritten", files, sizes, counts, forms, dict(plans))


def _trace(
    model: Any,
    target: Target,
    batch: int,
    plans: Mapping[str, tuple[Budget, ...]],
    folder: Path,
    progress: Callable[[int, int], None],
) -> tuple[int, ...]:
    """Every graph as traced; returns the numbers of tokens to time."""
    named = {f"{method}.{at}": plan for method, own in plans.items() for at, plan in enumerate(own)}
    first = next(iter(named.values()), None)
    if first is not None:
        named = {DENSE: without_stages(first), **named}
    halves = {half: Halves(model, half) for half in HALVES}
    least = max(half.least for half in halves.values())
    total = len(named) + len(halves)
    with WeightStore(folder) as store:
        for done, (half, part) in enumerate(halves.items()):
            trace_free_into(store, f"{half}.onnx", part, batch, least)
            progress(done + 1, total)
        for done, (name, plan) in enumerate(named.items(), len(halves)):
            trace_into(store, f"{name}.onnx", deployable(model, plan, ("logits",), target.compares), batch)
            progress(done + 1, total)
    return counts_for(halves["mlp"].image_size[0], least, target.is_cpu)


def _at_counts(name: str, graph: onnx.ModelProto, counts: Sequence[int]) -> Iterator[tuple[str, onnx.ModelProto]]:
    """A half at every number of tokens, anything else as it is."""
    if name not in HALVES:
        yield name, graph
        return
    for count in counts:
        yield f"{name}.{count}", with_tokens(graph, count)
