"""What a device does with a bundle: build its engine, check it against the golden outputs, benchmark it. Torch-free."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import EnvironmentLackError, InputError
from ..targets import Target, get_target
from . import bundle, engine
from .bench import Watch, busy, environment, repeat, report
from .parity import Rung, compare, ladder
from .runners import OrtRunner, run_all, runner_for
from .trt import PRECISIONS, Compatibility, Precision

Progress = Callable[[int, int], None]
REPEATS = 3


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
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Interleaved benchmark of ONNX files through onnxruntime, in three repeats with sessions loaded anew.

    Args:
        graphs: `dense`, `pruned` and, with a token plan, `floor`.
        runs: rounds in all; each times every graph once.
        warmup: least seconds of warm-up a graph.
        threads: intra-op threads; None takes all cores.
        progress: called with (rounds done, rounds).
        target: whose execution providers are used where they start here; None takes the CPU's.
        precision: that the graphs hold.

    Returns:
        `bench.json`; its environment has `cpu_only`, the reason why the target's own providers were not used, or None.
    """
    before = environment(threads)
    seen: list[OrtRunner] = []
    reasons: list[str | None] = []

    def make() -> dict[str, Callable[[], object]]:
        chosen = target or get_target("ort-cpu")
        opened = {kind: runner_for(path, chosen, threads, precision) for kind, path in graphs.items()}
        runners = {kind: runner for kind, (runner, _) in opened.items()}
        reasons[:] = [why for _, why in opened.values() if why]
        first = next(iter(runners.values()))
        image = random_images(first.shape, first.dtype)
        seen[:] = runners.values()
        return {kind: partial(runner, image) for kind, runner in runners.items()}

    with Watch() as watch:
        samples, sizes = repeat(make, runs, REPEATS, warmup, progress)
    before |= {"runtime": seen[0].name, "cpu_only": reasons[0] if reasons else None}
    return report(samples, seen[0].batch, _after(before, watch, threads), sizes)


def _after(before: dict[str, Any], watch: Watch, threads: int | None = None) -> dict[str, Any]:
    """The environment of a whole benchmark: as it was before, other work while it ran, and heat after."""
    after = environment(threads)
    during = {"other_cores": watch.other_cores, "stolen_cores": watch.stolen_cores}
    kept = ("load_average", "frequency_mhz", "temperature_c", "throttle_events", "gpu_state")
    told = {f"{key}_after": after[key] for key in kept if after.get(key) is not None}
    return before | during | told | {"warning": busy(before | during)}


def bench_bundle(
    folder: str | os.PathLike[str],
    *,
    runs: int = 50,
    warmup: float = 0.5,
    threads: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Benchmark a bundle's graphs on this machine: its engine where there is one, else onnxruntime.

    Raises:
        InputError: the bundle is damaged.
    """
    root = Path(folder)
    manifest = bundle.verify(root)
    names = {"dense": "dense.onnx", "pruned": "model.onnx", "floor": "floor.onnx"}
    graphs = {kind: root / name for kind, name in names.items() if name in manifest["files"]}
    lacks = sorted(set(names) - set(graphs) - (set() if "budget.json" in manifest["files"] else {"floor"}))
    if lacks:  # a model that was only slimmed has no token plan, and so no floor
        raise InputError(f"{root} lacks {lacks} graphs; export it anew")
    if "model.engine" not in manifest["files"] or engine.why_not() is not None:
        target, (precision, _) = target_of(manifest), precision_of(manifest)
        return bench_graphs(graphs, runs, warmup, threads, progress, target, precision)
    return _bench_engines(root, graphs, manifest, runs, warmup, progress)


def _bench_engines(
    root: Path,
    graphs: Mapping[str, Path],
    manifest: Mapping[str, Any],
    runs: int,
    warmup: float,
    progress: Progress | None,
) -> dict[str, Any]:
    """Engines of all three graphs, built like the bundle's own, into a temporary folder but for that."""
    import tempfile

    before = environment()
    precision, pinned = precision_of(manifest)
    own = engine.check_identity(root / "model.engine", root / "model.onnx", engine.device_identity())
    options = {key: own[key] for key in ("version_compatible", "hardware_compatible", "dla_core") if key in own}
    with tempfile.TemporaryDirectory(prefix="vitrim-") as scratch, ExitStack() as stack:
        plans = {kind: Path(scratch) / f"{kind}.engine" for kind in graphs} | {"pruned": root / "model.engine"}
        for kind, path in graphs.items():
            if kind != "pruned":
                engine.build_engine(
                    path, plans[kind], precision=precision, pinned=pinned, pins_may_miss=True, strict=False, **options
                )
        shared: dict[str, Any] = {}

        def make() -> dict[str, Callable[[], object]]:
            stack.close()
            runners = {k: stack.enter_context(engine.TrtRunner(plans[k], path)) for k, path in graphs.items()}
            for runner in runners.values():
                runner(random_images(runner.shape, runner.dtype))
            shared.update(runtime=runners["pruned"].name, batch=runners["pruned"].batch)
            return {kind: runner.infer for kind, runner in runners.items()}

        with Watch() as watch:
            samples, sizes = repeat(make, runs, REPEATS, warmup, progress)
    before |= {"runtime": shared["runtime"], "copies": "host-device copies are not timed"}
    return report(samples, shared["batch"], _after(before, watch) | engine.device_identity(), sizes)


def check_folder(
    root: Path,
    atol: float,
    tie: float,
    threads: int | None,
    before: dict[str, Any] | None = None,
    target: Target | None = None,
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Hold a bundle's graph, and its engine where one can run, against the golden outputs.

    Args:
        root: the folder; its hashes are not looked at here.
        atol: largest absolute error of a logit.
        tie: relative score gap below which decisions may differ.
        threads: onnxruntime threads.
        before: a ladder whose rungs come first.
        target: whose execution providers run the graph where they start here; None takes the CPU's.
        precision: that the graph holds.

    Returns:
        `parity.json`; with `cpu_only`, the reason why only the CPU ran a graph that is meant for something else.
    """
    golden = bundle.load_golden(root)
    images = golden.pop("image")
    rungs: list[Rung] = []
    extra: dict[str, Any] = {}
    if before is None:
        runner, cpu_only = runner_for(root / "model.onnx", target or get_target("ort-cpu"), threads, precision)
        extra |= {"cpu_only": cpu_only} if cpu_only else {}
        outputs = run_all(runner, images, runner.batch)
        rungs.append(compare(f"{runner.name} = golden", golden, outputs, atol=atol, tie=tie))
    if (root / "model.engine").exists():
        skipped = engine.why_not()
        if skipped is None:
            with engine.TrtRunner(root / "model.engine", root / "model.onnx") as trt:
                outputs = run_all(trt, images, trt.batch)
            rungs.append(compare(f"{trt.name} = golden", golden, outputs, atol=atol, tie=tie))
        else:
            extra["engine_not_checked"] = skipped
    result = ladder(rungs, atol, tie, extra)
    if before is not None:
        result["rungs"] = before["rungs"] + result["rungs"]
        result["passed"] = before["passed"] and result["passed"]
        result["first_offender"] = before["first_offender"] or result["first_offender"]
        for key in ("smallest_atol", "smallest_tie"):
            needs = (before[key], result[key])
            result[key] = None if None in needs else max(needs)
    return result


def check_bundle(
    folder: str | os.PathLike[str],
    *,
    atol: float | None = None,
    tie: float | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Verify every file of a bundle, then hold it against PyTorch's golden outputs; PyTorch is not needed.

    Args:
        folder: the bundle.
        atol, tie: over those of the bundle's own `parity.json`.

    Raises:
        InputError: a file is missing, changed, or not in the manifest.
    """
    root = Path(folder)
    manifest = bundle.verify(root, needs=("parity.json", "golden.npz", "model.onnx"))
    own = json.loads((root / "parity.json").read_text(encoding="utf-8"))
    atol, tie = own["atol"] if atol is None else atol, own["tie"] if tie is None else tie
    precision, _ = precision_of(manifest)
    return check_folder(root, atol, tie, threads, target=target_of(manifest), precision=precision)


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
        result = check_folder(staging, own["atol"], own["tie"], None, own) | {"engine": identity}
        if result["passed"]:
            (staging / "parity.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
            kept = {k: v for k, v in manifest.items() if k not in ("files", "created", "format", "versions", "command")}
            bundle.write_manifest(staging, manifest["versions"], manifest["command"], **(kept | {"engine": "built"}))
            bundle.publish(staging, root)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return result
