"""Time a bundle's graphs here, interleaved: by its engine where there is one, else by onnxruntime. Torch-free."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core import layout
from ...core.errors import EnvironmentLackError, InputError, VitrimError
from ...core.layout import Kind
from ...core.memory import give_back_memory, only_new_garbage
from ...core.targets import Precision, Target, get_target
from ..bench.blocks import ROUNDS, ByBlock, measure_blocks
from ..bench.interleave import interleave, repeat
from ..bench.predicted import prediction_here, told_by
from ..bench.report import Bench, TimedBundle, Untimed, report
from ..bench.stats import Distribution, summarize
from ..bench.timing import Timing
from ..bundles.manifest import Manifest, open_size
from ..bundles.verify import verify_bundle
from ..choose import require_runtime, run_by, runner_for, unable
from ..machine.energy import measure_here
from ..machine.environment import Watch, busy, environment
from ..openvino.runner import OpenVinoRunner
from ..runners import Runner
from ..tensorrt.engine import build_engine
from ..tensorrt.family import Family
from ..tensorrt.identity import check_identity, device_identity
from ..tensorrt.options import DLA_PRECISIONS, EngineOptions
from ..tensorrt.polygraphy_build import by_polygraphy
from ..tensorrt.rtx_build import builder_for
from ..tensorrt.runner import TrtRunner
from ..tensorrt.serializer import Serializer
from ..tensorrt.versions import runtime_missing

if TYPE_CHECKING:  # Python 3.8, which run_on_device.py serves, cannot make these
    Call = Callable[[], object]
    Progress = Callable[[int, int], None]
    Blocks = Callable[[Path], Mapping[str, str]]
REPEATS = 3
BY_BLOCK = "time by block is counted on a CPU, by onnxruntime or OpenVINO"
_MODE_ROUNDS = 50  # of what is reported beside the three graphs


@dataclass(frozen=True)
class Graph:
    """One graph of a benchmark.

    Attributes:
        path: the ONNX file.
        precision: that it is written in.
        pinned: nodes that stay in float32 where TensorRT is weakly typed.
    """

    path: Path
    precision: Precision = "fp32"
    pinned: tuple[str, ...] = ()


def random_images(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Images of a shape to time with: uniform pixels if the graph takes uint8, else normal noise of its type."""
    draw = np.random.default_rng(0)
    if dtype == np.uint8:
        return draw.integers(0, 256, shape, dtype=np.uint8)
    return draw.standard_normal(shape, dtype=np.float32).astype(dtype, copy=False)


@only_new_garbage()
def bench_graphs(
    graphs: Mapping[str, Graph],
    timing: Timing = Timing(),
    target: Target | None = None,
    progress: Progress | None = None,
    earlier: Mapping[str, np.ndarray] | None = None,
    cached: bool = False,
) -> Bench:
    """Interleaved benchmark of ONNX files through onnxruntime or OpenVINO, in three repeats with all loaded anew.

    Args:
        graphs: by kind, see `layout.Kind`: `dense`, `pruned` and, with a token plan, `floor`; and wider precisions.
        timing: how.
        target: whose runtime and execution providers are used where they start here; None takes onnxruntime's on the
            CPU.
        progress: called with (rounds done, rounds).
        earlier: rounds of the same graphs that have just been timed in turns, [rounds] milliseconds by kind: at most a
            third of `timing.runs` of them stand for the first repeat.
        cached: whether a runtime that compiles may keep what it compiled.

    Returns:
        the benchmark; its environment has `cpu_only`, the reason why the target's own providers were not used, or None.
    """
    before = environment(timing.threads)
    chosen = target or get_target("ort-cpu")
    runners: dict[str, Runner] = {}
    calls: dict[str, Call] = {}
    reasons: list[str] = []

    def make() -> dict[str, Call]:
        for held in (reasons, runners, calls):
            held.clear()
        give_back_memory()  # of the sessions before: a benchmark never holds two sets of them
        for kind, graph in graphs.items():
            runners[kind], reason = runner_for(graph.path, chosen, timing.threads, graph.precision, cached)
            reasons.extend([reason] if reason else [])
        calls.update({kind: partial(one, random_images(one.shape, one.dtype)) for kind, one in runners.items()})
        return calls

    known = 0 if earlier is None else min(len(earlier[Kind.PRUNED]), timing.runs // REPEATS)
    with Watch() as watch:
        repeats = REPEATS - 1 if known else REPEATS
        samples, sizes = repeat(make, timing.runs - known, repeats, timing.warmup, progress)
    if earlier is not None and known:
        samples = {kind: np.concatenate([earlier[kind][:known], values]) for kind, values in samples.items()}
        sizes = [known, *sizes]
    first = next(iter(runners.values()))
    before.update(**runners[Kind.PRUNED].conditions, runtime=first.name, cpu_only=reasons[0] if reasons else None)
    result = report(samples, first.batch, _with_after(before, watch, timing.threads), sizes)
    if isinstance(runners[Kind.PRUNED], OpenVinoRunner):
        modes, side = _throughput(graphs[Kind.PRUNED].path, chosen, timing.threads)
        result = replace(result, modes=modes, environment={**result.environment, "throughput": side})
    if not timing.energy:
        return result
    return replace(result, energy=measure_here(calls, first.batch, "cpu" if "cpu" in first.name else "gpu"))


def _throughput(
    graph: Path, target: Target, threads: int | None
) -> tuple[dict[str, Distribution | Untimed], dict[str, Any]]:
    """The pruned graph with several batches side by side, in milliseconds a batch, and how it was loaded for that."""
    runner = OpenVinoRunner(graph, str(target.device), threads, hint="throughput")
    loaded = runner.conditions["device"]
    image, several = random_images(runner.shape, runner.dtype), 2 * loaded["requests"]
    samples = interleave({"throughput": partial(runner.rate, image, several)}, _MODE_ROUNDS, 0.1)["throughput"]
    return {"throughput": summarize(samples / several)}, loaded


def _with_after(before: dict[str, Any], watch: Watch, threads: int | None = None) -> dict[str, Any]:
    """The environment of a whole benchmark: as it was before, other work while it ran, and heat after."""
    after = environment(threads)
    during = {"other_cores": watch.other_cores, "stolen_cores": watch.stolen_cores}
    kept = ("load_average", "frequency_mhz", "temperature_c", "throttle_events", "gpu_state", "jetson")
    changed = {f"{key}_after": after[key] for key in kept if after.get(key) is not None}
    return {**before, **during, **changed, "warning": busy({**before, **during})}


def bench_bundle(
    folder: str | os.PathLike[str],
    timing: Timing = Timing(),
    *,
    runtime: str = "auto",
    progress: Progress | None = None,
    serialize: Serializer = by_polygraphy,
    blocks: Blocks | None = None,
    size: str | int | Sequence[int] | None = None,
) -> Bench:
    """Benchmark a bundle's graphs on this machine: its engine where there is one, else by onnxruntime or OpenVINO.

    Args:
        folder: the bundle.
        timing: how.
        runtime: `tensorrt`, `onnxruntime`, `openvino`, or `auto`: TensorRT where the bundle has an engine and this
            machine runs it, else the target's own where it runs here, else onnxruntime.
        progress: called with (rounds done, rounds).
        serialize: builds the engines of the other graphs.
        blocks: of a graph's file, the blocks of its nodes, see `exporter.graph.blocks`: the dense and the pruned graph
            are run once more, and counted by block. None: they are not.
        size: of the images, such as `192x256`, in a bundle of several; None: the bundle's own.

    Returns:
        the benchmark; `bundle` in it says which graphs these were.

    Raises:
        InputError: there is no such runtime or size, or the bundle is damaged, or has no engine where one is asked for.
        EnvironmentLackError: a runtime is asked for, but cannot run; or time is asked for by block of what is no CPU's.
    """
    require_runtime(runtime)
    root, manifest = open_size(Path(folder), verify_bundle(Path(folder)), size)
    graphs = graphs_of(root, manifest)
    target = manifest.resolved_target
    told = told_by(root / layout.BUDGET) if layout.BUDGET in manifest.files else None
    how = target.no_engine or "build it first"
    reason = None if layout.ENGINE in manifest.files else f"{root} has no {(root / layout.ENGINE).name}: {how}"
    if runtime == "tensorrt" and reason:
        raise InputError(reason)
    serialize = builder_for(target, serialize)
    reason = reason or (_cannot_run(serialize) if runtime in ("auto", "tensorrt") else f"{runtime} is asked for")
    if runtime == "tensorrt" and reason:
        raise EnvironmentLackError(reason)
    if reason is None:
        if blocks is not None:
            raise EnvironmentLackError(f"{BY_BLOCK}, and an engine is timed; add --runtime onnxruntime")
        result = _bench_engines(root, graphs, timing, progress, serialize)
    else:
        chosen, aside = run_by(target, runtime)
        unfit = next(filter(None, (unable(chosen, graph.precision) for graph in graphs.values())), None)
        if unfit:
            raise EnvironmentLackError(unfit if target.no_engine else f"{unfit}, and no engine is timed: {reason}")
        if blocks is not None and not chosen.is_cpu:
            elsewhere = f"{target.name} is for another device"
            raise EnvironmentLackError(f"{BY_BLOCK}, and {elsewhere}; add --runtime onnxruntime")
        result = bench_graphs(graphs, timing, chosen, progress, cached=True)
        if blocks is not None:
            result = replace(result, by_block=count_blocks(graphs, blocks, chosen, timing.threads))
        if aside:
            result = replace(result, environment={**result.environment, "cpu_only": aside})
        if result.cpu_only and runtime == "auto" and layout.ENGINE in manifest.files:
            note = f"{result.cpu_only}; {(root / layout.ENGINE).name} is not timed: {reason}"
            result = replace(result, environment={**result.environment, "cpu_only": note})
    return replace(result, bundle=TimedBundle.of(manifest), prediction=prediction_here(told, target, result))


def count_blocks(
    graphs: Mapping[str, Graph], blocks: Blocks, target: Target, threads: int | None = None, rounds: int = ROUNDS
) -> ByBlock | None:
    """Milliseconds by block of a benchmark's dense and pruned graphs, see `bench.blocks.measure_blocks`."""
    files = {str(kind): graphs[kind].path for kind in (Kind.DENSE, Kind.PRUNED)}
    parts = {kind: blocks(path) for kind, path in files.items()}
    return measure_blocks(files, parts, target, random_images, threads, rounds)


def _cannot_run(serialize: Serializer) -> str | None:
    """What keeps engines from being built and run here; None where nothing does."""
    missing = serialize.missing()
    if missing is None and serialize.family.builds_anywhere:  # a builder may be all that there is
        return runtime_missing(serialize.family)
    return missing


def graphs_of(root: Path | layout.Sized, manifest: Manifest) -> dict[str, Graph]:
    """The graphs of a bundle by kind: the dense one is float32, whatever the bundle is.

    Raises:
        InputError: one is missing.
    """
    precision, pinned = manifest.precision.name, manifest.precision.float32_nodes
    wider: dict[Kind, Precision] = {Kind.FP16: "fp16", Kind.FP32: "fp32"}
    held: dict[Kind, Precision] = {Kind.DENSE: "fp32", Kind.PRUNED: precision, Kind.FLOOR: precision, **wider}
    # A model that was only slimmed has no token plan, and so no floor.
    needed = [kind for kind in layout.TRACED if kind is not Kind.FLOOR or layout.BUDGET in manifest.files]
    missing = sorted(str(kind) for kind in needed if kind.filename not in manifest.files)
    if missing:
        raise InputError(f"{root} lacks {missing} graphs; export it anew")
    return {
        str(kind): Graph(root / kind.filename, narrow, () if kind in (Kind.DENSE, Kind.FP32) else pinned)
        for kind, narrow in held.items()
        if kind.filename in manifest.files
    }


def _bench_engines(
    root: layout.Sized, graphs: Mapping[str, Graph], timing: Timing, progress: Progress | None, serialize: Serializer
) -> Bench:
    """Engines of all graphs, each in its precision and else built like the bundle's own; the others are temporary."""
    with tempfile.TemporaryDirectory(prefix="vitrim-") as scratch:
        built = _build_others(root, graphs, Path(scratch), serialize)
        engines = {kind: (built[kind], graph.path) for kind, graph in graphs.items()}
        return time_engines(engines, serialize.family, timing, progress)


def time_engines(
    engines: Mapping[str, tuple[Path, Path]],
    family: Family,
    timing: Timing = Timing(),
    progress: Progress | None = None,
    repeats: int = REPEATS,
) -> Bench:
    """Interleaved benchmark of engines that have been built, loaded anew in every repeat.

    Args:
        engines: by kind, see `layout.Kind`, an engine and the graph that it was built from; `dense` and `pruned` are
            among them.
        family: of all of them.
        timing: how.
        progress: called with (rounds done, rounds).
        repeats: how often everything is loaded.

    Returns:
        the benchmark; what it says under `modes` is of the pruned engine alone.

    Raises:
        InputError: an engine is not of its graph, or not for this machine.
        EnvironmentLackError: no TensorRT or no GPU.
        UnsupportedError: an engine fails to run, or to be recorded as a CUDA graph where that is asked for.
    """
    before = environment()
    runners: dict[str, TrtRunner] = {}
    calls: dict[str, Call] = {}
    with ExitStack() as stack:

        def make() -> dict[str, Call]:
            stack.close()
            for kind, (engine, graph) in engines.items():
                made = TrtRunner(engine, graph, cuda_graph=timing.cuda_graph)
                runners[kind] = stack.enter_context(made)
                image = random_images(made.shape, made.dtype)
                made(image)
                calls[kind] = partial(made, image) if timing.copies else made.infer
            return calls

        with Watch() as watch:
            samples, sizes = repeat(make, timing.runs, repeats, timing.warmup, progress)
        pruned = runners[Kind.PRUNED]
        where = {
            **_with_after(before, watch),
            **device_identity(family),
            "runtime": pruned.name,
            "cuda_graph": timing.cuda_graph,
            "copies": f"host-device copies are {'' if timing.copies else 'not '}timed",
        }
        other = partial(TrtRunner, *engines[Kind.PRUNED], cuda_graph=not timing.cuda_graph)
        result = replace(report(samples, pruned.batch, where, sizes), modes=_modes(pruned, timing.cuda_graph, other))
        return replace(result, energy=measure_here(calls, pruned.batch, "gpu")) if timing.energy else result


def _build_others(
    root: layout.Sized, graphs: Mapping[str, Graph], scratch: Path, serialize: Serializer
) -> dict[str, Path]:
    """The bundle's own engine, its identity checked, and in a temporary folder engines of the other graphs.

    A DLA takes fp16 and int8 alone, so wider graphs run on the GPU where the bundle's own engine is for a DLA.
    """
    own = check_identity(root / layout.ENGINE, root / layout.MODEL, device_identity(serialize.family))
    engines = {kind: scratch / f"{kind}.engine" for kind in graphs}
    engines[Kind.PRUNED] = root / layout.ENGINE
    for kind, graph in graphs.items():
        if kind != Kind.PRUNED:
            options = EngineOptions(
                version_compatible=own.version_compatible,
                hardware_compatible=own.hardware_compatible,
                capabilities=own.capabilities or (),
                dla_core=own.dla_core if graph.precision in DLA_PRECISIONS else None,
                strict=False,
            )
            build_engine(
                graph.path,
                engines[kind],
                options,
                precision=graph.precision,
                pinned=graph.pinned,
                pins_may_miss=True,
                serialize=serialize,
            )
    return engines


def _modes(
    pruned: TrtRunner, cuda_graph: bool, make_other: Callable[[], TrtRunner]
) -> dict[str, Distribution | Untimed]:
    """The pruned engine run in every way, interleaved, in milliseconds.

    `cuda_graph` and `plain` are inference alone, launched as a CUDA graph and not; `with_copies` is as benched with the
    copies to and from the GPU, `copy_in` and `copy_out` those alone, and `gpu_only` is inference by the GPU's clock.
    """
    image = random_images(pruned.shape, pruned.dtype)
    mine, others = ("cuda_graph", "plain") if cuda_graph else ("plain", "cuda_graph")
    ways: dict[str, Call] = {
        mine: pruned.infer,
        "with_copies": partial(pruned, image),
        "copy_in": partial(pruned.upload, image),
        "copy_out": pruned.download,
    }
    found: dict[str, Distribution | Untimed] = {}
    with ExitStack() as stack:
        try:
            other = stack.enter_context(make_other())
            other(image)
            ways[others] = other.infer
        except VitrimError as error:  # not every engine can be recorded
            found[others] = Untimed(str(error))
        found.update({name: summarize(values) for name, values in interleave(ways, _MODE_ROUNDS, 0.1).items()})
        found["gpu_only"] = summarize(np.array([pruned.device_milliseconds() for _ in range(_MODE_ROUNDS)]))
    return found
