"""The command line: parse, call `vitrim.api`, print. Importing it imports neither torch nor timm."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from . import cli_output as screen
from .cli_call import Call, as_it_is
from .cli_complete import (
    complete_device,
    complete_method,
    complete_model,
    complete_precision,
    complete_recipe,
    complete_setting,
    complete_target,
)
from .cli_errors import report as tell
from .cli_evaluated import print_evaluation
from .cli_kernels import print_kernels
from .cli_latency import print_table
from .cli_optimized import print_optimized
from .cli_progress import open_listener
from .cli_streams import open_streams
from .exporter.core.bounds import ATOL, BATCH, CLASSES, PROFILE_PROCESSES, PROFILE_ROUNDS, THREADS, WORKERS
from .exporter.core.errors import NotFasterError, ParityError
from .exporter.core.latency import PROCESSES, ROUNDS
from .exporter.core.targets import RUNTIMES
from .exporter.runtime.bench.timing import RUNS, WARMUP, Timing
from .exporter.runtime.tensorrt.options import CAPABILITIES, DLA_CORES, WORKSPACE_MIB, EngineOptions

if TYPE_CHECKING:
    from rich.console import Console

    from .exporter.runtime.bench.report import Bench
    from .exporter.runtime.parity import Parity

ENGINE_MODES = ["auto", "require", "skip"]
EPILOG = (
    "Exit status: 0 done, 1 parity or a requirement failed, 2 not faster than dense, 3 bad input or something missing "
    "here."
)


def command(example: str) -> Callable[[Callable[..., Call]], click.Command]:
    """Make a command of a function that says which call of the API it stands for.

    Every command has --json, --quiet and --print-python, and prints its result even where that is a failure.

    Args:
        example: of a command line.
    """

    def decorate(function: Callable[..., Call]) -> click.Command:
        @functools.wraps(function)
        def run(as_json: bool, quiet: bool, print_python: bool, **options: Any) -> None:
            call = function(**options)
            if print_python:
                click.echo(call.python())
                return
            slower = None
            with open_listener(as_json or quiet) as listener:
                try:
                    result = call.run(listener)
                except NotFasterError as error:
                    if error.result is None:
                        raise
                    slower, result = error, error.result
            if as_json:
                screen.print_json(call.plain(result))
                click.get_current_context().ensure_object(dict)["result"] = True
            elif not quiet:
                call.draw(result, screen.console_for(sys.stdout))
            if slower is not None:
                raise slower
            call.judge(result)

        for option in (
            click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else."),
            click.option("--quiet", is_flag=True, help="Print nothing but errors."),
            click.option("--print-python", is_flag=True, help="Print the API call that this stands for, and stop."),
        ):
            run = option(run)
        return cli.command(epilog=f"Example: {example}")(run)

    return decorate


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="vitrim")
def cli() -> None:
    """Prune a Vision Transformer, export it with static shapes, and prove it right.

    Start with: vitrim export quickstart -o out/
    """


settings_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=complete_setting,
    help="Override a recipe's key, such as --set export.batch=8.",
)
recipe_argument = click.argument("recipe", shell_complete=complete_recipe)
device_option = click.option(
    "--device",
    shell_complete=complete_device,
    help="Change the recipe for a device that ships (jetson-orin, desktop-gpu, cpu) or a YAML file; --set wins.",
)
bundle_argument = click.argument("bundle", type=click.Path(path_type=Path))
threads_option = click.option(
    "--threads", type=click.IntRange(*THREADS), help="Threads of the CPU; all cores by default."
)
runtime_option = click.option(
    "--runtime",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", *RUNTIMES]),
    help="What runs the graphs: auto takes the engine where there is one, else the target's own runtime.",
)


track_option = click.option(
    "--track",
    "tracker",
    type=click.Choice(["mlflow", "wandb"]),
    help="Keep the run in MLflow or Weights & Biases; their own environment variables say where.",
)
force_option = click.option(
    "--force", is_flag=True, help="Replace whatever plain file is there, but nothing that is read."
)

workers_option = click.option(
    "--workers",
    type=click.IntRange(*WORKERS),
    help="Processes; with --ray actors, all that fit by default.  [default: 1]",
)
ray_option = click.option(
    "--ray",
    is_flag=False,
    flag_value="auto",
    metavar="[ADDRESS]",
    help="Work on a cluster of Ray: HOST:PORT, auto ($RAY_ADDRESS, or the one here), or local to start one.",
)


def out_option(text: str) -> Callable[[Callable[..., Call]], Callable[..., Call]]:
    """-o, which must be given."""
    return click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help=text)


@command("vitrim export my.yaml -o out/ --set prune.target.gflops=0.81")
@recipe_argument
@out_option("Folder of the bundle.")
@device_option
@settings_option
@click.option(
    "--engine",
    type=click.Choice(ENGINE_MODES),
    help="TensorRT engine: where possible, always, never.",
)
@click.option("--force", is_flag=True, help="Publish even what does not hold what the recipe requires.")
@track_option
def export(recipe: str, out: Path, tracker: str | None, device: str | None, **options: Any) -> Call:
    """Take RECIPE (a file, or the name of one that ships) all the way to a bundle."""
    hidden = {"command": sys.argv}
    return Call("export", (recipe, out), _on(device, options), screen.print_export, hidden=hidden, tracker=tracker)


@command("vitrim optimize model.onnx -o out/ --target jetpack-6 --precision fp16")
@click.argument("path", type=click.Path(path_type=Path))
@out_option("Folder of the bundle.")
@click.option(
    "--target", shell_complete=complete_target, help="Where it will run, see `vitrim targets`.  [default: ort-cpu]"
)
@click.option(
    "--precision",
    shell_complete=complete_precision,
    help="fp32, fp16, bf16 or int8; int8 needs images.  [default: fp32]",
)
@click.option("--batch", type=click.IntRange(*BATCH), help="For an open batch dimension.  [default: 1]")
@click.option("--images", type=click.Path(path_type=Path), help="Photos, or an .npz of inputs.  [default: random ones]")
@click.option("--output", help="Name of the answer, where the file has several outputs.")
@click.option("--engine", type=click.Choice(ENGINE_MODES), help="TensorRT engine: where possible, always, never.")
@click.option("--allow-slower", is_flag=True, help="Do not fail when the graph is not faster than the file.")
@click.option(
    "--as",
    "model",
    shell_complete=complete_model,
    help="timm's name of the model in the file: recover its weights, and prune it.",
)
@click.option(
    "--method",
    shell_complete=complete_method,
    help="With --as: pruning method; the best measured one by default.",
)
@click.option("--flops-ratio", type=click.FloatRange(0, 1, min_open=True), help="With --as: share of GMACs to keep.")
@click.option(
    "--recipe", shell_complete=complete_recipe, help="A recipe that says how to prune and export the file's model."
)
@settings_option
@track_option
def optimize(path: Path, out: Path, allow_slower: bool, tracker: str | None, **options: Any) -> Call:
    """Take an ONNX file PATH alone to a bundle: rewritten for a target, proven against the file, timed. Needs no torch.

    With --as or --recipe, the model's weights are found in the graph, proven, pruned and exported, which needs torch.
    """
    given = {key: value for key, value in options.items() if value is not None}
    given |= {"allow_slower": True} if allow_slower else {}

    def draw(done: Any, console: Console) -> None:
        (screen.print_export if {"model", "recipe"} & set(given) else print_optimized)(done, console)

    return Call("optimize", (path, out), given, draw, hidden={"command": sys.argv}, tracker=tracker)


@command("vitrim calibrate my.yaml -o budget.json --set prune.mass=0.9")
@recipe_argument
@out_option("The budget.json to write.")
@device_option
@workers_option
@ray_option
@settings_option
@force_option
def calibrate(recipe: str, out: Path, device: str | None, **options: Any) -> Call:
    """Decide a static token budget for RECIPE and write it, to be read, edited and given back as prune.budget."""
    return Call("calibrate", (recipe, out), _on(device, options), screen.print_budget, plain=_model_json)


@command("vitrim profile my.yaml -o table.json --threads 1")
@click.argument("source", metavar="MODEL|RECIPE")
@out_option("The table to write, a .json.")
@click.option("--target", help="Over the recipe's export.target, see `vitrim targets`.")
@click.option("--batch", type=click.IntRange(*BATCH), help="Over the recipe's export.batch.")
@click.option("--threads", type=click.IntRange(*THREADS), help="Over the recipe's bench.threads.")
@click.option(
    "--method", "methods", multiple=True, help="Whose stages are measured; may be repeated.  [default: the recipe's]"
)
@click.option(
    "--processes",
    default=PROCESSES,
    show_default=True,
    type=click.IntRange(*PROFILE_PROCESSES),
    help="Everything is loaded anew in so many.",
)
@click.option(
    "--rounds", default=ROUNDS, show_default=True, type=click.IntRange(*PROFILE_ROUNDS), help="Of each process."
)
@settings_option
@force_option
def profile(source: str, out: Path, **options: Any) -> Call:
    """Measure a table of latencies here, for targets that are milliseconds or a speed-up.

    Give it as prune.target.table, with prune.target.latency_ms or prune.target.speedup.
    """
    return Call("profile", (source, out), options, print_table)


@command("vitrim slim my.yaml -o slim.safetensors --set slim.target.flops_ratio=0.8")
@recipe_argument
@out_option("The .safetensors to write.")
@settings_option
@force_option
def slim(recipe: str, out: Path, **options: Any) -> Call:
    """Make RECIPE's model narrower and write it as a checkpoint, with its widths beside it as JSON."""
    return Call("slim", (recipe, out), options, screen.print_widths, plain=_model_json)


def _on(device: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Options of a call whose settings begin with a device's."""
    if device is None:
        return options
    from .recipes.pipeline.load import device_settings

    return {**options, "settings": (*device_settings(device).items(), *options["settings"])}


def _model_json(plan: Any) -> Any:
    return plan.model_dump(mode="json")


@command("vitrim inspect out/ --target jetpack-5")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--target", shell_complete=complete_target, help="Lint for this target instead of the bundle's own.")
@click.option("--kernels", is_flag=True, help="Show the kernels of the bundle's engine instead, by block and stage.")
def inspect(path: Path, target: str | None, kernels: bool) -> Call:
    """Show the operators of PATH (a bundle or any .onnx) before and after the passes, and lint it."""

    def judge(result: dict[str, Any]) -> None:
        if any(finding["severity"] == "error" for finding in result["findings"]):
            raise SystemExit(1)

    show = print_kernels if kernels else screen.print_inspection
    return Call("inspect", (path,), {"target": target, "kernels": kernels}, show, plain=as_it_is, judge=judge)


@command("vitrim lint model.onnx --target jetpack-5 --target trt-11")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--target",
    "targets",
    multiple=True,
    shell_complete=complete_target,
    help="For this target, in detail; may be repeated.  [default: all]",
)
@click.option(
    "--ask",
    metavar="TARGET",
    shell_complete=complete_target,
    help="Also ask this target's own parser and builder: trt-rtx (without a GPU) or openvino.",
)
def lint(path: Path, targets: tuple[str, ...], ask: str | None) -> Call:
    """Say what targets refuse of PATH (any .onnx, or a bundle), or take and silently compute wrongly.

    Status 1 when a named target refuses it; without --target, when every target does. With --ask, the builder's word
    counts for its target. Shapes that are not static are told in one line, and no target refuses a graph for them.
    """

    def judge(result: dict[str, Any]) -> None:
        refused = {name: bool(verdict["errors"]) for name, verdict in result["targets"].items()}
        if ask is not None:
            refused[result["asked"]["target"]] = result["asked"]["verdict"] != "built"
        if any(refused.values()) if targets or ask else all(refused.values()):
            raise SystemExit(1)

    chosen = targets[0] if len(targets) == 1 else targets or None
    return Call("lint", (path,), {"target": chosen, "ask": ask}, screen.print_lint, plain=as_it_is, judge=judge)


@command("vitrim targets --json")
def targets() -> Call:
    """List the targets: opset, precisions, missing operators, which Jetsons run them, known faults."""
    return Call("targets", (), {}, screen.print_targets, plain=as_it_is)


@command("vitrim check out/")
@bundle_argument
@click.option(
    "--atol",
    type=click.FloatRange(*ATOL),
    help="Largest absolute error of a logit; the bundle's own limits by default.",
)
@threads_option
@runtime_option
def check(bundle: Path, **options: Any) -> Call:
    """Verify every file of BUNDLE, and hold its graph and engine against PyTorch's golden outputs. Needs no torch."""
    return Call("check", (bundle,), options, screen.print_parity, judge=_refuse_failed)


def _refuse_failed(parity: Parity) -> None:
    if not parity.passed:
        raise ParityError(parity.failure)


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
@click.option("--cuda-graph/--no-cuda-graph", help="Launch engines as CUDA graphs; the other way is timed too.")
@click.option("--copies/--no-copies", help="Time engines with the copies to and from the GPU.")
@click.option("--energy", is_flag=True, help="Also measure energy per image, in separate loops.")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the result here, as JSON.")
@force_option
@click.option("--allow-slower", is_flag=True, help="Do not fail when the pruned graph is not faster.")
def bench(bundle: Path, allow_slower: bool, **options: Any) -> Call:
    """Time the dense, pruned and floor graphs of BUNDLE, interleaved, on this machine. Needs no torch."""

    def judge(result: Bench) -> None:
        if not allow_slower and result.fails:
            raise NotFasterError(f"the pruned graph is {result.verdict}; allow it with --allow-slower")

    return Call("bench", (bundle,), options, screen.print_bench, judge=judge)


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
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Write the result here, as JSON; a run that ended goes on."
)
@force_option
def evaluate(bundle: Path, images: Path, **options: Any) -> Call:
    """Hold BUNDLE's pruned graph against its dense one on images, and both against labels. Needs no torch."""
    return Call("evaluate_bundle", (bundle, images), options, print_evaluation)


@command("vitrim compare orin.json xavier.json out/")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
def compare(results: tuple[Path, ...]) -> Call:
    """Lay benchmarks side by side: RESULTS are bundles, or what `vitrim bench -o` wrote on several devices."""
    return Call("compare", (results,), {}, screen.print_comparison)


@command("vitrim report out/ orin.json -o report.html")
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
    "--count", default=8, show_default=True, type=click.IntRange(1, 256), help="Photos of each bundle to show."
)
@force_option
def report(sources: tuple[Path, ...], out: Path, **options: Any) -> Call:
    """Write one offline page about SOURCES, bundles or benchmarks: patches, answers, times, proofs. Needs no torch."""
    return Call("report", (sources, out), options, screen.print_report)


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
def build(bundle: Path, timing_cache: Path | None, no_timing_cache: bool, any_precision: bool, **options: Any) -> Call:
    """Build BUNDLE's engine with this machine's TensorRT, prove it, and publish the bundle with it. Needs no torch."""
    if timing_cache and no_timing_cache:
        raise click.UsageError("--timing-cache and --no-timing-cache exclude each other")
    options |= {"timing_cache": False if no_timing_cache else timing_cache, "strict": not any_precision}
    return Call("build", (bundle,), options, screen.print_parity, judge=_refuse_failed)


@command("vitrim clean out/")
@click.argument("outputs", nargs=-1, type=click.Path(path_type=Path))
def clean(outputs: tuple[Path, ...]) -> Call:
    """Remove the caches of finished stages beside OUTPUTS; without any, all in this folder. Says what that frees."""
    return Call("clean", (outputs,) if outputs else (), {}, screen.print_freed, plain=as_it_is)


@command("vitrim recipes --schema > recipe.schema.json")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a recipe instead.")
def recipes(schema: bool) -> Call:
    """List the recipes that ship."""
    if schema:
        return Call("recipe_schema", (), {}, lambda found, console: screen.print_json(found), plain=as_it_is)
    return Call("recipes", (), {}, screen.print_recipes, plain=as_it_is)


@command("vitrim devices")
def devices() -> Call:
    """List the devices that ship, for --device."""
    return Call("devices", (), {}, screen.print_recipes, plain=as_it_is)


@command("vitrim methods --json")
def methods() -> Call:
    """List the pruning methods: what each does, its parameters, the options of a stage, its presets."""
    return Call("methods", (), {}, screen.print_methods, plain=as_it_is)


@command("vitrim models dinov2")
@click.argument("wanted", default="", shell_complete=complete_model)
def models(wanted: str) -> Call:
    """Say which of timm's models vitrim takes, and why not the others; WANTED is part of a family's or model's name."""

    def plain(families: list[Any]) -> Any:
        return [family.to_dict() for family in families]

    return Call("models", (wanted,) if wanted else (), {}, screen.print_families, plain=plain)


@command("vitrim new deit_small_patch16_224 -o deit.yaml")
@click.argument("model", shell_complete=complete_model)
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="File to write; standard output by default.",
)
@force_option
@click.option(
    "--target",
    default="ort-cpu",
    show_default=True,
    shell_complete=complete_target,
    help="Where it will run, see `vitrim targets`.",
)
@click.option(
    "--precision",
    shell_complete=complete_precision,
    help="fp32, fp16, bf16, int8 or auto.  [default: fp32; auto for the target cpu]",
)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Your weights; timm's are fetched by default.")
@click.option("--images", type=click.Path(path_type=Path), help="Your photos; photos/ by default.")
@click.option(
    "--classes", type=click.IntRange(*CLASSES), help="Classes of your checkpoint, where not the model's own number."
)
def new(model: str, out: Path | None, **options: Any) -> Call:
    """Write a commented recipe for MODEL, timm's name or a folder of transformers, with the best method measured."""

    def draw(text: str, console: Console) -> None:
        click.echo(text if out is None else f"wrote {out}\n", nl=False)

    def plain(text: str) -> Any:
        return {"recipe": text} if out is None else {"written": str(out)}

    return Call("new", (model,), {"out": out, **options}, draw, plain=plain)


@command("vitrim doctor --json")
def doctor() -> Call:
    """Say what this machine has, what is missing, what that costs, and how to get it."""

    def plain(checks: list[Any]) -> Any:
        return [check.to_json() for check in checks]

    return Call("doctor", (), {}, screen.print_checks, plain=plain)


def main() -> None:
    """Run the command line; every error is one line and a status, never a traceback."""
    open_streams()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    printed: dict[str, bool] = {}
    try:
        sys.exit(cli.main(prog_name="vitrim", standalone_mode=False, obj=printed) or 0)
    except (Exception, KeyboardInterrupt) as error:
        sys.exit(tell(error, as_json="--json" in sys.argv[1:] and not printed))


if __name__ == "__main__":
    main()
