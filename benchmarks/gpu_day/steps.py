"""What a step does, in the process that is its own, by vitrim's own functions; and what a machine has."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from vitrim.exporter.core import layout
from vitrim.exporter.core.errors import EnvironmentLackError, ParityError
from vitrim.exporter.core.files import sha256
from vitrim.exporter.core.layout import Kind
from vitrim.exporter.core.records import Record
from vitrim.exporter.core.targets import TARGETS, Target, get_target
from vitrim.exporter.runtime.bench.report import Bench
from vitrim.exporter.runtime.bench.timing import Timing
from vitrim.exporter.runtime.bundles.manifest import read_manifest
from vitrim.exporter.runtime.machine import gpu
from vitrim.exporter.runtime.machine.environment import version
from vitrim.exporter.runtime.machine.meters import find_meter
from vitrim.exporter.runtime.tensorrt.family import FAMILIES, Family, family_of
from vitrim.exporter.runtime.tensorrt.versions import builder_missing, import_tensorrt, runtime_missing, version_of

from .plan import COMPILED, CUDA_GRAPH, DENSE, PLAIN, QUICKSTART, TORCH, Step
from .results import Engines, Graphs, Held, InTorch

REPEATS = 2  # of a timing, with everything loaded anew
GPU, METER = "gpu", "meter"
EVALUATED = 128  # images that answers are counted on


def bundle_of(work: Path, step: Step) -> Path:
    """Where a step's bundle lies."""
    return work / "bundles" / step.case


def floor_of(work: Path, step: Step) -> Path:
    """Where the engine of the floor lies: a bundle holds that of its own graph alone."""
    return work / "engines" / f"{step.case}-floor.engine"


def kept_weights(work: Path, model: str) -> list[Path]:
    """The checkpoint of a model in the folder of all results; empty where its weights are random."""
    return [path for path in sorted((work / "weights").glob("*")) if path.stem == model]


def recipe_of(step: Step, work: Path) -> tuple[str | dict[str, Any], dict[str, Any]]:
    """The recipe of a step's bundle, and what is changed in it."""
    images = max(8, step.batch)
    settings: dict[str, Any] = {
        "export.target": step.target,
        "export.batch": step.batch,
        "precision.name": step.precision,
        "parity.images": images,
        "parity.golden": images,
        "prune.method": "slice" if step.method == DENSE else step.method,
        **({"prune.keep_rates": {1: 1.0}} if step.method == DENSE else {"prune.target": {"flops_ratio": step.ratio}}),
    }
    if step.model == QUICKSTART:
        return QUICKSTART, settings | {"evaluate.count": EVALUATED}
    weights: dict[str, Any] = {"random": 0}
    if step.checkpoint is not None:
        weights = {"checkpoint": str(kept_weights(work, step.model)[0]), "sha256": step.checkpoint}
    plain = {
        "model": {"name": step.model, **weights},
        "images": {"generator": "noise", "count": 16},
        "prune": {"method": "slice", "keep_rates": {1: 1.0}},
        # Noise has no right answers: what an engine makes of it is shown, and decides nothing.
        "precision": {"name": step.precision, "agreement": 0.0, "cosine": 0.0},
    }
    return plain, settings


def export(step: Step, work: Path) -> Graphs:
    """The graphs: dense, pruned, floor, with their golden outputs."""
    from vitrim import api

    recipe, settings = recipe_of(step, work)
    place = bundle_of(work, step)
    done = api.export(recipe, place, settings=settings, engine="skip")
    api.clean(place)  # the stages that bundles share lie in a cache of their own
    assert done.budget is not None
    files = read_manifest(place).files
    graphs = (Kind.DENSE, Kind.PRUNED, Kind.FLOOR)
    return Graphs(
        sha256={str(kind): files[kind.filename].sha256 for kind in graphs if kind.filename in files},
        gmacs=done.budget.total_gmacs,
        agreement=done.fidelity.agreement,
    )


def build(step: Step, work: Path) -> Engines:
    """Engines of the pruned graph, as `vitrim build` makes and proves it, and of the floor."""
    from vitrim.exporter.runtime.commands.bench import graphs_of
    from vitrim.exporter.runtime.commands.build import build_bundle
    from vitrim.exporter.runtime.tensorrt.engine import build_engine
    from vitrim.exporter.runtime.tensorrt.options import EngineOptions
    from vitrim.exporter.runtime.tensorrt.plain_build import by_tensorrt
    from vitrim.exporter.runtime.tensorrt.rtx_build import builder_for

    place = bundle_of(work, step)
    parity = build_bundle(place, serialize=by_tensorrt)
    if not parity.passed:
        raise ParityError(parity.failure)
    assert parity.engine is not None
    engines = {str(Kind.PRUNED): place / layout.ENGINE}
    if step.method != DENSE:
        manifest = read_manifest(place)
        floor, engine = graphs_of(place, manifest)[Kind.FLOOR], floor_of(work, step)
        build_engine(
            floor.path,
            engine,
            EngineOptions(strict=False),
            precision=floor.precision,
            pinned=floor.pinned,
            pins_may_miss=True,
            serialize=builder_for(get_target(step.target), by_tensorrt),
        )
        engines[str(Kind.FLOOR)] = engine
    layers = parity.engine.layers
    return Engines(
        sha256={kind: sha256(path) for kind, path in engines.items()},
        bytes={kind: path.stat().st_size for kind, path in engines.items()},
        kernels=None if layers is None or not layers.layers else layers.layers,
        fused=None if layers is None else layers.attention.fused,
        verdict="not looked into" if layers is None else layers.verdict,
        tensorrt=parity.engine.tensorrt,
    )


def parity(step: Step, work: Path) -> Held:
    """The engine against PyTorch's golden outputs, as `vitrim check` holds it, and how long it takes to load."""
    from vitrim.exporter.runtime.commands.check import check_bundle
    from vitrim.exporter.runtime.tensorrt.runner import TrtRunner

    place = bundle_of(work, step)
    began = time.perf_counter()
    with TrtRunner(place / layout.ENGINE, place / layout.MODEL):
        seconds = time.perf_counter() - began
    rung = check_bundle(place, runtime="tensorrt").rungs[-1]
    return Held(rung, seconds)


def engines_of(step: Step, work: Path) -> dict[str, tuple[Path, Path]]:
    """By kind, the engines that a timing takes in turns, and their graphs; the dense one against itself shows noise."""
    dense, own = bundle_of(work, step.of(DENSE)), bundle_of(work, step)
    found = {
        str(Kind.DENSE): (dense / layout.ENGINE, dense / layout.MODEL),
        str(Kind.PRUNED): (own / layout.ENGINE, own / layout.MODEL),
    }
    if step.method != DENSE:
        found[str(Kind.FLOOR)] = (floor_of(work, step), own / Kind.FLOOR.filename)
    return found


def timing(step: Step, work: Path) -> Bench:
    """Dense, pruned and floor in turns; or, more slowly, their energy."""
    from vitrim.exporter.runtime.commands.bench import time_engines

    family, engines = family_of(get_target(step.target)), engines_of(step, work)
    if step.kind == "energy":
        how = Timing(runs=10, warmup=0.1, cuda_graph=True, energy=True)
        return time_engines(engines, family, how, repeats=1)
    how = Timing(runs=step.rounds, cuda_graph=step.variant == CUDA_GRAPH)
    return time_engines(engines, family, how, repeats=REPEATS)


def pytorch(step: Step, work: Path) -> InTorch:
    """The model in PyTorch, fp16: launched plainly and as a CUDA graph, in turns, and the energy of the latter."""
    import torch

    from vitrim import api
    from vitrim.exporter.pruning.shape import describe
    from vitrim.exporter.runtime.bench.interleave import interleave
    from vitrim.exporter.runtime.bench.stats import summarize
    from vitrim.exporter.runtime.machine.energy import measure_here
    from vitrim.recipes.pipeline.open import open_model

    recipe, settings = recipe_of(step, work)
    model = open_model(api.recipe(recipe, settings | {"export.target": "ort-cpu", "precision.name": "fp32"}))
    shape = (step.batch, *describe(model).image_size)
    model = model.half().cuda()
    run = torch.compile(model) if step.variant == COMPILED else model
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).half().cuda()
    with torch.inference_mode():
        calls = {PLAIN: partial(_waited, partial(run, images)), CUDA_GRAPH: partial(_waited, _captured(run, images))}
        samples = interleave(calls, step.rounds)
        energy = measure_here({CUDA_GRAPH: calls[CUDA_GRAPH]}, step.batch, "gpu")
    return InTorch({name: summarize(values) for name, values in samples.items()}, energy, torch.__version__)


def _waited(run: Callable[[], object]) -> None:
    """Run and wait, as an engine's `infer` does."""
    import torch

    run()
    torch.cuda.synchronize()


def _captured(run: Callable[..., object], images: Any) -> Callable[[], None]:
    """Runs as one recorded CUDA graph."""
    import torch

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(5):  # compiles, and allocates what is only allocated once
            run(images)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        run(images)
    replay: Callable[[], None] = graph.replay
    return replay


WORK: dict[str, Callable[[Step, Path], Record]] = {
    "export": export,
    "build": build,
    "parity": parity,
    "time": timing,
    "energy": timing,
    "torch": pytorch,
}


def probe(name: str) -> dict[str, Any]:
    """What this machine has of one thing.

    Args:
        name: `gpu`, `meter`, a TensorRT's family, or `torch`.

    Returns:
        of `gpu`, its facts; else `version`, and what keeps it from running (`runs`) and from building (`builds`), or
        None.
    """
    if name == GPU:
        return dict(gpu.describe())
    if name == METER:
        meter, reason = find_meter("gpu")
        return {"version": meter and meter.name, "runs": reason or None, "builds": None}
    if name == TORCH:
        missing = _torch_missing()
        return {"version": version(TORCH), "runs": missing, "builds": missing}
    family = FAMILIES[name]
    return {"version": _version(family), "runs": runtime_missing(family), "builds": builder_missing(family)}


def _version(family: Family) -> str | None:
    with suppress(EnvironmentLackError):
        return str(import_tensorrt(family).__version__)
    return None


def newest_target(tensorrt: str | None) -> str | None:
    """The newest target that a TensorRT of a version takes; None without one, or where it is older than all."""
    if tensorrt is None:
        return None
    here = version_of(tensorrt)
    fitting: list[Target] = [one for one in TARGETS.values() if one.tensorrt is not None and one.tensorrt <= here]
    return max(fitting, key=lambda one: one.tensorrt or (0, 0)).name if fitting else None


def _torch_missing() -> str | None:
    """What keeps PyTorch from running on a GPU here."""
    if version("timm") is None:
        return "timm is not installed: pip install 'vitrim[export]'"
    try:
        import torch
    except Exception as error:  # libraries that do not load raise types of their own
        return f"PyTorch cannot be imported ({' '.join(str(error).split())[:160]}): pip install 'vitrim[export]'"
    return None if torch.cuda.is_available() else f"PyTorch {torch.__version__} finds no GPU here: check nvidia-smi"
