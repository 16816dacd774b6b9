"""Commands on bundles: check, time, evaluate, compare, report, serve, build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...exporter.core.bounds import ATOL, PHOTOS, SHOWN, THREADS
from ...exporter.core.errors import NotFasterError, ParityError
from ...exporter.runtime.bench.timing import RUNS, WARMUP, Timing
from ...exporter.runtime.tensorrt.options import CAPABILITIES, DLA_CORES, WORKSPACE_MIB, EngineOptions
from ..call import Call
from ..group import (
    bundle_argument,
    command,
    force_option,
    out_option,
    ray_option,
    runtime_option,
    size_option,
    threads_option,
    workers_option,
)
from ..screens.bench import print_blocks, print_comparison
from ..screens.evaluation import print_evaluation
from ..screens.parity import print_parity
from ..screens.report import print_report

if TYPE_CHECKING:
    from rich.console import Console

    from ...exporter.runtime.bench.report import Bench
    from ...exporter.runtime.parity import Parity


@command("vitrim check out/")
@bundle_argument
@click.option(
    "--atol",
    type=click.FloatRange(*ATOL),
    help="Largest absolute error of a logit; the bundle's own limits by default.",
)
@threads_option
@runtime_option
@size_option
def check(bundle: Path, **options: Any) -> Call:
    """Verify every file of BUNDLE, and hold its graph and engine against PyTorch's golden outputs. Needs no torch."""
    return Call("check", (bundle,), options, print_parity, judge=_refuse_failed)


@command("vitrim bench out/ --runs 200")
@bundle_argument
@click.option("--runs", default=Timing.runs, show_default=True, type=click.IntRange(*RUNS), help="Interleaved rounds.")
@click.option(
    "--warmup",
    default=Timing.warmup,
    show_default=True,
    type=click.FloatRange(*WARMUP),
    help="Least seconds of warm-up per graph.",
)
@threads_option
@runtime_option
@size_option
@click.option("--cuda-graph/--no-cuda-graph", help="Launch engines as CUDA graphs; the other way is timed too.")
@click.option("--copies/--no-copies", help="Time engines with the copies to and from the GPU.")
@click.option("--energy", is_flag=True, help="Also measure energy per image, in separate loops.")
@click.option("--by-block", is_flag=True, help="Also count what each block takes, on a CPU; needs the package onnx.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the result here, as JSON.")
@force_option
@click.option("--allow-slower", is_flag=True, help="Do not fail when the pruned graph is not faster.")
def bench(bundle: Path, allow_slower: bool, **options: Any) -> Call:
    """Time the dense, pruned and floor graphs of BUNDLE, interleaved, on this machine. Needs no torch."""

    def judge(result: Bench) -> None:
        if not allow_slower and result.fails:
            raise NotFasterError(f"the pruned graph is {result.verdict}; allow it with --allow-slower")

    return Call("bench", (bundle,), options, print_blocks, judge=judge)


@command("vitrim evaluate out/ --images imagenet/val --workers 4 -o evaluation.json")
@bundle_argument
@click.option(
    "--images",
    required=True,
    type=click.Path(path_type=Path),
    help="Photos, class folders of photos, tar or parquet files, or an .npz.",
)
@click.option("--count", type=click.IntRange(min=1), help="Images, spread evenly; all by default.")
@click.option("--classes", type=click.Path(path_type=Path), help="File that says which folder is which class.")
@workers_option
@ray_option
@click.option("--threads", type=click.IntRange(*THREADS), help="Threads of each; the cores are shared out by default.")
@runtime_option
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Write the result here, as JSON; a run that ended goes on."
)
@size_option
@force_option
def evaluate(bundle: Path, images: Path, **options: Any) -> Call:
    """Hold BUNDLE's pruned graph or engine against its dense graph on images, and both to labels. Needs no torch."""
    return Call("evaluate_bundle", (bundle, images), options, print_evaluation)


@command("vitrim compare orin.json xavier.json out/")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
def compare(results: tuple[Path, ...]) -> Call:
    """Lay benchmarks side by side: RESULTS are bundles, or what `vitrim bench -o` wrote on several devices."""
    return Call("compare", (results,), {}, print_comparison)


@command("vitrim report out/ orin.json evaluation.json -o report.html")
@click.argument("sources", nargs=-1, required=True, type=click.Path(path_type=Path))
@out_option("The page to write; its data goes beside it, as .json.")
@click.option(
    "--images",
    default="golden",
    show_default=True,
    type=click.Choice(["golden", "none"]),
    help="Photos to show: the bundle's golden ones, or none where they are private.",
)
@click.option(
    "--count", default=SHOWN, show_default=True, type=click.IntRange(*PHOTOS), help="Photos of each bundle to show."
)
@force_option
def report(sources: tuple[Path, ...], out: Path, **options: Any) -> Call:
    """Write one offline page about SOURCES: bundles, benchmarks, sweeps, evaluations. Needs no torch."""
    return Call("report", (sources, out), options, print_report)


@command("vitrim triton out/ -o models/ --name deit")
@bundle_argument
@out_option("The model repository; other models in it stay.")
@click.option("--name", help="Of the model.  [default: the bundle's]")
def triton(bundle: Path, out: Path, name: str | None) -> Call:
    """Write BUNDLE as a model of a Triton Inference Server's repository: its engine, or else its graph."""

    def draw(folder: Path, console: Console) -> None:
        console.print(f"wrote {folder}: tritonserver --model-repository={out}", soft_wrap=True, markup=False)

    return Call("triton", (bundle, out), {"name": name}, draw, plain=lambda folder: {"written": str(folder)})


@command("vitrim build out/   (on the Jetson or the machine with the GPU; for trt-rtx anywhere)")
@bundle_argument
@click.option(
    "--workspace",
    "workspace_mib",
    default=EngineOptions.workspace_mib,
    show_default=True,
    type=click.IntRange(*WORKSPACE_MIB),
    help="Scratch memory of the builder, in MiB.",
)
@click.option("--timing-cache", type=click.Path(path_type=Path), help="Folder of timing caches; ~/.cache by default.")
@click.option("--no-timing-cache", is_flag=True, help="Time every kernel anew.")
@click.option("--version-compatible", is_flag=True, help="Newer TensorRTs may take the engine too (from 8.6 on).")
@click.option(
    "--hardware-compatible",
    type=click.Choice(["ampere_plus", "same_compute_capability"]),
    help="Other GPUs may take the engine too (from 8.6 and 10.9 on; not on a Jetson).",
)
@click.option(
    "--dla-core", type=click.IntRange(*DLA_CORES), help="Run on this DLA core what can; the GPU takes the rest."
)
@click.option(
    "--capability",
    "capabilities",
    multiple=True,
    type=click.Choice(CAPABILITIES),
    help="Of GPUs that an engine of TensorRT for RTX is for; may be repeated.  [default: 8.0 and newer]",
)
@click.option("--any-precision", is_flag=True, help="Keep an engine whose layers run in another precision.")
@size_option
def build(bundle: Path, timing_cache: Path | None, no_timing_cache: bool, any_precision: bool, **options: Any) -> Call:
    """Build BUNDLE's engine with this machine's TensorRT, prove it, and publish the bundle with it. Needs no torch."""
    if timing_cache and no_timing_cache:
        raise click.UsageError("--timing-cache and --no-timing-cache exclude each other")
    options |= {"timing_cache": False if no_timing_cache else timing_cache, "strict": not any_precision}
    return Call("build", (bundle,), options, print_parity, judge=_refuse_failed)


def _refuse_failed(parity: Parity) -> None:
    if not parity.passed:
        raise ParityError(parity.failure)
