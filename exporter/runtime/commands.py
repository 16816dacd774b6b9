"""What a device does with a bundle: build its engine, check it against the golden outputs, benchmark it. Torch-free."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..core.errors import EnvironmentLackError, InputError, VitrimError
from ..core.targets import Target, get_target
from . import bundle
from .bench.interleave import Watch, busy, environment, interleave, repeat, report
from .bench.stats import summarize
from .machine.energy import energy as measure_energy
from .parity import Outputs, Rung, close, compare, ladder
from .runners import OrtRunner, run_all, runner_for
from .tensorrt import engine
from .tensorrt.versions import DLA_PRECISIONS, PRECISIONS, Compatibility, Precision

if TYPE_CHECKING:  # Python 3.8, which run_on_device.py serves, cannot make these
    Progress = Callable[[int, int], None]
    Runs = Mapping[str, Callable[[], object]]
REPEATS = 3
_MODE_ROUNDS = 50  # of what is told besides the three graphs
_GRAPHS = {"dense": "dense.onnx", "pruned": "model.onnx", "floor": "floor.onnx"}
# Precisions in which the pruned graph may lie besides, as model.<precision>.onnx.
_WIDER: tuple[Precision, ...] = ("fp16", "fp32")
_NO_BF16 = "onnxruntime runs no bf16 graphs"


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


def bench_graphs(
    graphs: Mapping[str, Path],
    runs: int,
    warmup: float,
    threads: int | None,
    progress: Progress | None = None,
    target: Target | None = None,
    precisions: Mapping[str, Precision] | None = None,
    energy: bool = False,
) -> dict[str, Any]:
    """Interleaved benchmark of ONNX files through onnxruntime, in three repeats with sessions loaded anew.

    Args:
        graphs: `dense`, `pruned` and, with a token plan, `floor`; further names as `bench.report` takes them.
        runs: rounds in all; each times every graph once.
        warmup: least seconds of warm-up a graph.
        threads: intra-op threads; None takes all cores.
        progress: called with (rounds done, rounds).
        target: whose execution providers are used where they start here; None takes the CPU's.
        precisions: that the graphs hold, by the same names; fp32 where a name is not in it.
        energy: measure energy an image besides, in loops of its own.

    Returns:
        `bench.json`; its environment has `cpu_only`, the reason why the target's own providers were not used, or None.
    """
    before = environment(threads)
    seen: list[OrtRunner] = []
    calls: dict[str, Callable[[], object]] = {}
    reasons: list[str | None] = []

    def make() -> dict[str, Callable[[], object]]:
        chosen = target or get_target("ort-cpu")
        held = precisions or {}
        opened = {kind: runner_for(path, chosen, threads, held.get(kind, "fp32")) for kind, path in graphs.items()}
        runners = {kind: runner for kind, (runner, _) in opened.items()}
        reasons[:] = [why for _, why in opened.values() if why]
        seen[:] = runners.values()
        calls.update({kind: partial(one, random_images(one.shape, one.dtype)) for kind, one in runners.items()})
        return calls

    with Watch() as watch:
        samples, sizes = repeat(make, runs, REPEATS, warmup, progress)
    before.update(runtime=seen[0].name, cpu_only=reasons[0] if reasons else None)
    result = report(samples, seen[0].batch, _after(before, watch, threads), sizes)
    if energy:
        on = "cpu" if "cpu" in seen[0].name else "gpu"
        result["energy"] = measure_energy(calls, seen[0].batch, on)
    return result


def _after(before: dict[str, Any], watch: Watch, threads: int | None = None) -> dict[str, Any]:
    """The environment of a whole benchmark: as it was before, other work while it ran, and heat after."""
    after = environment(threads)
    during = {"other_cores": watch.other_cores, "stolen_cores": watch.stolen_cores}
    kept = ("load_average", "frequency_mhz", "temperature_c", "throttle_events", "gpu_state", "jetson")
    told = {f"{key}_after": after[key] for key in kept if after.get(key) is not None}
    return {**before, **during, **told, "warning": busy({**before, **during})}


def bench_bundle(
    folder: str | os.PathLike[str],
    *,
    runs: int = 50,
    warmup: float = 0.5,
    threads: int | None = None,
    cuda_graph: bool = False,
    copies: bool = False,
    energy: bool = False,
    runtime: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Benchmark a bundle's graphs on this machine: its engine where there is one, else onnxruntime.

    Args:
        folder: the bundle.
        runs: rounds in all; each times every graph once.
        warmup: least seconds of warm-up a graph.
        threads: onnxruntime's; None takes all cores.
        cuda_graph: launch engines as CUDA graphs; `modes` tells the other way too.
        copies: time engines with the copies to and from the GPU; `modes` tells the copies themselves anyway.
        energy: measure energy an image besides, in loops of its own.
        runtime: `tensorrt`, `onnxruntime`, or `auto`: TensorRT where the bundle has an engine and this machine runs it.
        progress: called with (rounds done, rounds).

    Returns:
        `bench.json`; `bundle` in it says which graphs these were.

    Raises:
        InputError: the bundle is damaged, or has no engine where one is asked for.
        EnvironmentLackError: TensorRT is asked for, but cannot run.
    """
    root = Path(folder)
    manifest = bundle.verify(root)
    graphs = graphs_of(root, manifest)
    lack = None if "model.engine" in manifest["files"] else f"{root} has no model.engine: build it first"
    if runtime == "tensorrt" and lack:
        raise InputError(lack)
    lack = lack or (engine.why_not() if runtime != "onnxruntime" else "onnxruntime is asked for")
    if runtime == "tensorrt" and lack:
        raise EnvironmentLackError(lack)
    if lack:
        paths = {kind: graph.path for kind, graph in graphs.items()}
        precisions = {kind: graph.precision for kind, graph in graphs.items()}
        if "bf16" in precisions.values():
            raise EnvironmentLackError(f"{_NO_BF16}, and no engine is timed: {lack}")
        result = bench_graphs(paths, runs, warmup, threads, progress, target_of(manifest), precisions, energy)
    else:
        result = _bench_engines(root, graphs, runs, warmup, progress, cuda_graph, copies, energy)
    return {**result, "bundle": identity_of(manifest)}


def graphs_of(root: Path, manifest: Mapping[str, Any]) -> dict[str, Graph]:
    """The graphs of a bundle by what they are in a benchmark: the dense one is float32, whatever the bundle is.

    Raises:
        InputError: the bundle lacks one.
    """
    precision, pinned = precision_of(manifest)
    graphs = {
        kind: Graph(root / name, precision, pinned) for kind, name in _GRAPHS.items() if name in manifest["files"]
    }
    # A model that was only slimmed has no token plan, and so no floor.
    if "dense" in graphs:
        graphs["dense"] = Graph(root / _GRAPHS["dense"])
    lacks = sorted(set(_GRAPHS) - set(graphs) - (set() if "budget.json" in manifest["files"] else {"floor"}))
    if lacks:
        raise InputError(f"{root} lacks {lacks} graphs; export it anew")
    for wider in _WIDER:
        name = f"model.{wider}.onnx"
        if name in manifest["files"]:
            graphs[wider] = Graph(root / name, wider, () if wider == "fp32" else pinned)
    return graphs


def identity_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Which graphs a benchmark timed: what must be the same for two benchmarks to be comparable."""
    files = manifest["files"]
    hashes = {
        key: files[name]["sha256"]
        for key, name in (
            ("graph_sha256", "model.onnx"),
            ("dense_sha256", "dense.onnx"),
            ("budget_sha256", "budget.json"),
            ("widths_sha256", "widths.json"),
        )
        if name in files
    }
    return {
        "target": manifest.get("target"),
        "precision": precision_of(manifest)[0],
        "batch": manifest.get("batch"),
        **hashes,
    }


def _bench_engines(
    root: Path,
    graphs: Mapping[str, Graph],
    runs: int,
    warmup: float,
    progress: Progress | None,
    cuda_graph: bool,
    copies: bool,
    energy: bool,
) -> dict[str, Any]:
    """Engines of all graphs, each in its precision and else built like the bundle's own; the others are temporary.

    A DLA takes fp16 and int8 alone, so wider graphs run on the GPU where the bundle's own engine is for a DLA.
    """
    import tempfile

    before = environment()
    own = engine.check_identity(root / "model.engine", root / "model.onnx", engine.device_identity())
    options = {key: own[key] for key in ("version_compatible", "hardware_compatible") if key in own}
    with tempfile.TemporaryDirectory(prefix="vitrim-") as scratch, ExitStack() as stack:
        plans = {kind: Path(scratch) / f"{kind}.engine" for kind in graphs}
        plans["pruned"] = root / "model.engine"
        for kind, graph in graphs.items():
            if kind != "pruned":
                engine.build_engine(
                    graph.path,
                    plans[kind],
                    precision=graph.precision,
                    pinned=graph.pinned,
                    pins_may_miss=True,
                    strict=False,
                    dla_core=own.get("dla_core") if graph.precision in DLA_PRECISIONS else None,
                    **options,
                )
        runners: dict[str, engine.TrtRunner] = {}
        calls: dict[str, Callable[[], object]] = {}

        def make() -> dict[str, Callable[[], object]]:
            stack.close()
            for kind, graph in graphs.items():
                runners[kind] = stack.enter_context(engine.TrtRunner(plans[kind], graph.path, cuda_graph=cuda_graph))
                image = random_images(runners[kind].shape, runners[kind].dtype)
                runners[kind](image)
                calls[kind] = partial(runners[kind], image) if copies else runners[kind].infer
            return calls

        with Watch() as watch:
            samples, sizes = repeat(make, runs, REPEATS, warmup, progress)
        pruned = runners["pruned"]
        result = report(samples, pruned.batch, {**_after(before, watch), **engine.device_identity()}, sizes)
        result["environment"].update(
            runtime=pruned.name,
            cuda_graph=cuda_graph,
            copies="host-device copies are timed" if copies else "host-device copies are not timed",
        )
        other = partial(engine.TrtRunner, plans["pruned"], graphs["pruned"].path, cuda_graph=not cuda_graph)
        result["modes"] = _modes(pruned, cuda_graph, other)
        if energy:
            result["energy"] = measure_energy(calls, pruned.batch, "gpu")
    return result


def _modes(pruned: engine.TrtRunner, cuda_graph: bool, make_other: Callable[[], engine.TrtRunner]) -> dict[str, Any]:
    """The pruned engine run in every way, interleaved, in milliseconds.

    `cuda_graph` and `plain` are inference alone, launched as a CUDA graph and not; `with_copies` is as benched with the
    copies to and from the GPU, `copy_in` and `copy_out` those alone, and `gpu_only` is inference by the GPU's clock.
    """
    image = random_images(pruned.shape, pruned.dtype)
    mine, others = ("cuda_graph", "plain") if cuda_graph else ("plain", "cuda_graph")
    ways: dict[str, Callable[[], object]] = {
        mine: pruned.infer,
        "with_copies": partial(pruned, image),
        "copy_in": partial(pruned.upload, image),
        "copy_out": pruned.download,
    }
    told: dict[str, Any] = {}
    with ExitStack() as stack:
        try:
            other = stack.enter_context(make_other())
            other(image)
            ways[others] = other.infer
        except VitrimError as error:  # not every engine can be recorded
            told[others] = {"reason": str(error)}
        told.update({name: summarize(values) for name, values in interleave(ways, _MODE_ROUNDS, 0.1).items()})
        told["gpu_only"] = summarize(np.array([pruned.device_milliseconds() for _ in range(_MODE_ROUNDS)]))
    return told


def check_folder(
    root: Path,
    atol: float,
    tie: float,
    threads: int | None,
    before: dict[str, Any] | None = None,
    target: Target | None = None,
    precision: Precision = "fp32",
    onnxruntime: bool = True,
    limits: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Hold a bundle's graph, and its engine where one can run, against the golden outputs.

    Args:
        root: the folder; its hashes are not looked at here.
        atol: largest absolute error of a logit.
        tie: relative score gap below which decisions may differ.
        threads: onnxruntime threads.
        before: a ladder whose rungs come first; the graph itself is in it. Its `close`, where it has one, is kept.
        target: whose execution providers run the graph where they start here; None takes the CPU's.
        precision: that the graph holds.
        onnxruntime: hold the graph against them too, by onnxruntime; else the engine alone.
        limits: `cosine` and `agreement` that judge by `parity.close` instead of `atol` and `tie`, for a graph of
            another precision than float32; None takes those that `before` has.

    Returns:
        `parity.json`; with `cpu_only`, the reason why only the CPU ran a graph that is meant for something else;
        `close`, the limits where they judged; `graph_not_checked` and `engine_not_checked`, reasons.

    Raises:
        EnvironmentLackError: nothing can run here, so nothing could be checked.
    """
    golden = bundle.load_golden(root)
    images = golden.pop("image")
    rungs: list[Rung] = []
    limits = (before or {}).get("close") if limits is None else limits
    extra: dict[str, Any] = {"close": dict(limits)} if limits else {}

    def hold(name: str, outputs: Outputs) -> None:
        if limits:
            found = close(name, golden, outputs, cosine=limits["cosine"], agreement=limits["agreement"])
        else:
            found = compare(name, golden, outputs, atol=atol, tie=tie)
        rungs.append(found)

    if before is None and onnxruntime and precision == "bf16":
        extra["graph_not_checked"] = _NO_BF16
    elif before is None and onnxruntime:
        runner, cpu_only = runner_for(root / "model.onnx", target or get_target("ort-cpu"), threads, precision)
        extra.update({"cpu_only": cpu_only} if cpu_only else {})
        hold(f"{runner.name} = golden", run_all(runner, images, runner.batch))
    skipped: str | None = f"{root} has no model.engine: build it first"
    if (root / "model.engine").exists():
        skipped = engine.why_not()
        if skipped is None:
            with engine.TrtRunner(root / "model.engine", root / "model.onnx") as trt:
                hold(f"{trt.name} = golden", run_all(trt, images, trt.batch))
        else:
            extra["engine_not_checked"] = skipped
    if not rungs and before is None:
        reasons = [extra.get("graph_not_checked"), skipped]
        raise EnvironmentLackError(f"nothing was checked: {'; '.join(filter(None, reasons))}")
    return ladder(rungs, atol, tie, extra, (before or {}).get("rungs", ()))


def check_bundle(
    folder: str | os.PathLike[str],
    *,
    atol: float | None = None,
    tie: float | None = None,
    threads: int | None = None,
    onnxruntime: bool = True,
) -> dict[str, Any]:
    """Verify every file of a bundle, then hold it against PyTorch's golden outputs; PyTorch is not needed.

    Args:
        folder: the bundle.
        atol, tie: over those of the bundle's own `parity.json`; either makes the check strict where that one's
            `close` would judge a bundle of another precision by cosine and answers.
        threads: onnxruntime's; None takes all cores.
        onnxruntime: check the graph too, by onnxruntime; else the engine alone.

    Raises:
        InputError: a file is missing, changed, or not in the manifest.
        EnvironmentLackError: nothing can run here.
    """
    root = Path(folder)
    manifest = bundle.verify(root, needs=("parity.json", "golden.npz", "model.onnx"))
    own = json.loads((root / "parity.json").read_text(encoding="utf-8"))
    limits = own.get("close") if atol is None and tie is None else None
    atol, tie = own["atol"] if atol is None else atol, own["tie"] if tie is None else tie
    precision, _ = precision_of(manifest)
    return check_folder(
        root,
        atol,
        tie,
        threads,
        target=target_of(manifest),
        precision=precision,
        onnxruntime=onnxruntime,
        limits=limits,
    )


def precision_of(manifest: Mapping[str, Any]) -> tuple[Precision, tuple[str, ...]]:
    """Precision of a bundle's graphs, and the nodes in them that stay in float32; without an entry fp32 and none.

    Raises:
        InputError: the entry is of a newer vitrim.
    """
    entry = manifest.get("precision") or {"name": "fp32"}
    name = entry.get("name") if isinstance(entry, dict) else None
    if name not in PRECISIONS:
        raise InputError(
            f"the bundle's precision {name!r} is unknown to this vitrim (it knows {', '.join(PRECISIONS)})"
        )
    return name, tuple(entry.get("float32_nodes") or ())


def target_of(manifest: Mapping[str, Any]) -> Target:
    """The target that a bundle was exported for; `ort-cpu` where the manifest does not say."""
    return get_target(manifest.get("target") or "ort-cpu")


def build_bundle(
    folder: str | os.PathLike[str],
    *,
    workspace_mib: int = 1024,
    timing_cache: str | os.PathLike[str] | Literal[False] | None = None,
    version_compatible: bool = False,
    hardware_compatible: Compatibility | None = None,
    dla_core: int | None = None,
    strict: bool = True,
) -> dict[str, Any]:
    """Build a bundle's engine on this machine, prove it against the golden outputs, and publish the bundle with it.

    The precision, and what stays in float32, is what the bundle's manifest says of its graph.

    Args:
        folder: the bundle.
        workspace_mib, timing_cache, version_compatible, hardware_compatible, dla_core, strict: see
            `engine.build_engine`.

    Raises:
        InputError: the bundle is damaged.
        EnvironmentLackError: no TensorRT or no GPU.
        UnsupportedError: TensorRT refuses the graph or an option, or layers run in another precision.

    Returns:
        `parity.json` of the engine, with the engine's identity as `engine`; publish happens only if it passed.
    """
    import shutil

    root = Path(os.path.abspath(folder))
    manifest = bundle.verify(root, needs=("parity.json", "golden.npz", "model.onnx"))
    lack = engine.why_not()
    if lack:
        raise EnvironmentLackError(lack)
    staging = bundle.staging_folder(root)
    try:
        shutil.copytree(root, staging, dirs_exist_ok=True)
        precision, pinned = precision_of(manifest)
        identity = engine.build_engine(
            staging / "model.onnx",
            staging / "model.engine",
            precision=precision,
            pinned=pinned,
            workspace_mib=workspace_mib,
            timing_cache=timing_cache,
            version_compatible=version_compatible,
            hardware_compatible=hardware_compatible,
            dla_core=dla_core,
            strict=strict,
        )
        own = json.loads((staging / "parity.json").read_text(encoding="utf-8"))
        result = {**check_folder(staging, own["atol"], own["tie"], None, own), "engine": identity}
        if result["passed"]:
            (staging / "parity.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
            kept = {k: v for k, v in manifest.items() if k not in ("files", "created", "format", "versions", "command")}
            kept["engine"] = "built"
            bundle.write_manifest(staging, manifest["versions"], manifest["command"], **kept)
            bundle.publish(staging, root)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return result
