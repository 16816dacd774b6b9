"""What a device does with a bundle: build its engine, check it against the golden outputs, benchmark it. Torch-free."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EnvironmentLackError, InputError
from . import bundle, engine
from .bench import Watch, busy, environment, repeat, report
from .parity import Rung, compare, ladder
from .runners import OrtRunner, run_all

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
) -> dict[str, Any]:
    """Interleaved benchmark of ONNX files through onnxruntime on the CPU, in three repeats with sessions loaded anew.

    Args:
        graphs: `dense`, `pruned` and, with a token plan, `floor`.
        runs: rounds in all; each times every graph once.
        warmup: least seconds of warm-up a graph.
        threads: intra-op threads; None takes all cores.
        progress: called with (rounds done, rounds).

    Returns:
        `bench.json`.
    """
    before = environment(threads)
    seen: list[OrtRunner] = []

    def make() -> dict[str, Callable[[], object]]:
        runners = {kind: OrtRunner(str(path), threads=threads) for kind, path in graphs.items()}
        first = next(iter(runners.values()))
        image = random_images(first.shape, first.dtype)
        seen[:] = runners.values()
        return {kind: partial(runner, image) for kind, runner in runners.items()}

    with Watch() as watch:
        samples, sizes = repeat(make, runs, REPEATS, warmup, progress)
    before["runtime"] = seen[0].name
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
        return bench_graphs(graphs, runs, warmup, threads, progress)
    return _bench_engines(root, graphs, runs, warmup, progress)


def _bench_engines(
    root: Path, graphs: Mapping[str, Path], runs: int, warmup: float, progress: Progress | None
) -> dict[str, Any]:
    """Engines of all three graphs, built into a temporary folder but for the bundle's own."""
    import tempfile

    before = environment()
    with tempfile.TemporaryDirectory(prefix="vitrim-") as scratch, ExitStack() as stack:
        plans = {kind: Path(scratch) / f"{kind}.engine" for kind in graphs} | {"pruned": root / "model.engine"}
        for kind, path in graphs.items():
            if kind != "pruned":
                engine.build_engine(path, plans[kind])
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
    root: Path, atol: float, tie: float, threads: int | None, before: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Hold a bundle's graph, and its engine where one can run, against the golden outputs.

    Args:
        root: the folder; its hashes are not looked at here.
        atol: largest absolute error of a logit.
        tie: relative score gap below which decisions may differ.
        threads: onnxruntime threads.
        before: a ladder whose rungs come first.

    Returns:
        `parity.json`.
    """
    golden = bundle.load_golden(root)
    images = golden.pop("image")
    rungs: list[Rung] = []
    if before is None:
        runner = OrtRunner(str(root / "model.onnx"), threads=threads)
        outputs = run_all(runner, images, runner.batch)
        rungs.append(compare(f"{runner.name} = golden", golden, outputs, atol=atol, tie=tie))
    skipped = None
    if (root / "model.engine").exists():
        skipped = engine.why_not()
        if skipped is None:
            with engine.TrtRunner(root / "model.engine", root / "model.onnx") as trt:
                outputs = run_all(trt, images, trt.batch)
            rungs.append(compare(f"{trt.name} = golden", golden, outputs, atol=atol, tie=tie))
    result = ladder(rungs, atol, tie, {"engine_not_checked": skipped} if skipped else None)
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
    bundle.verify(root, needs=("parity.json", "golden.npz", "model.onnx"))
    own = json.loads((root / "parity.json").read_text(encoding="utf-8"))
    return check_folder(root, own["atol"] if atol is None else atol, own["tie"] if tie is None else tie, threads)


def build_bundle(folder: str | os.PathLike[str], *, workspace_mib: int = 1024) -> dict[str, Any]:
    """Build a bundle's engine on this machine, prove it against the golden outputs, and publish the bundle with it.

    Raises:
        InputError: the bundle is damaged.
        EnvironmentLackError: no TensorRT or no GPU.
        UnsupportedError: TensorRT refuses the graph.

    Returns:
        `parity.json` of the engine; publish happens only if it passed.
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
        engine.build_engine(staging / "model.onnx", staging / "model.engine", workspace_mib=workspace_mib)
        own = json.loads((staging / "parity.json").read_text(encoding="utf-8"))
        result = check_folder(staging, own["atol"], own["tie"], None, own)
        if result["passed"]:
            (staging / "parity.json").write_text(json.dumps(result, indent=2), encoding="utf-8")
            kept = {k: v for k, v in manifest.items() if k not in ("files", "created", "format", "versions", "command")}
            bundle.write_manifest(staging, manifest["versions"], manifest["command"], **(kept | {"engine": "built"}))
            bundle.publish(staging, root)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return result
