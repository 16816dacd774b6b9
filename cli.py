"""The command line: parse, call `vitrim.api`, print. Importing it imports neither torch nor timm."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from . import __version__, api
from . import cli_output as screen
from .exporter.core.errors import NotFasterError, ParityError, VitrimError
from .exporter.core.files import atomic_write

EPILOG = "Exit status: 0 done, 1 parity failed, 2 not faster than dense, 3 bad input or something missing here."


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every command has."""
    command = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")(
        command
    )
    command = click.option("--quiet", is_flag=True, help="Print nothing but errors.")(command)
    return click.option("--print-python", is_flag=True, help="Print the API call that this stands for, and stop.")(
        command
    )


def shows(call: str, arguments: dict[str, Any], print_python: bool) -> bool:
    """Print the Python that a command stands for, if asked; arguments that are None are left out."""
    if not print_python:
        return False
    given = ", ".join(
        f"{key}={value!r}" if key[0] != "_" else repr(value)
        for key, value in arguments.items()
        if value not in (None, ())
    )
    click.echo(f"from vitrim import api\n\napi.{call}({given})")
    return True


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
    help="Override a recipe's key, such as --set export.batch=8.",
)


@cli.command(epilog="Example: vitrim export my.yaml -o out/ --set prune.target.gflops=0.81")
@click.argument("recipe")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Folder of the bundle.")
@settings_option
@click.option(
    "--engine",
    type=click.Choice(["auto", "require", "skip"]),
    help="TensorRT engine: where possible, always, never.",
)
@common
def export(
    recipe: str,
    out: Path,
    settings: tuple[str, ...],
    engine: str | None,
    as_json: bool,
    quiet: bool,
    print_python: bool,
) -> None:
    """Take RECIPE (a file, or the name of one that ships) all the way to a bundle."""
    arguments = {"_recipe": recipe, "_out": str(out), "settings": list(settings) or None, "engine": engine}
    if shows("export", arguments, print_python):
        return
    slower = None
    with screen.listener(as_json or quiet) as listener:
        try:
            done: Any = api.export(recipe, out, settings=settings, engine=engine, listener=listener, command=sys.argv)
        except NotFasterError as error:
            slower, done = error, error.result
    result = {
        "folder": str(done.folder),
        "budget": None if done.budget is None else done.budget.model_dump(mode="json"),
        "widths": None if done.widths is None else done.widths.model_dump(mode="json"),
        "parity": done.parity,
        "fidelity": done.fidelity,
        "bench": done.bench,
        "precision": done.precision,
        "engine": done.engine or "built",
    }
    screen.show(result, screen.exported, as_json, quiet)
    if slower is not None:
        raise slower


@cli.command(epilog="Example: vitrim calibrate my.yaml -o budget.json --set prune.mass=0.9")
@click.argument("recipe")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The budget.json to write.")
@settings_option
@common
def calibrate(
    recipe: str, out: Path, settings: tuple[str, ...], as_json: bool, quiet: bool, print_python: bool
) -> None:
    """Decide a static token budget for RECIPE and write it, to be read, edited and given back as prune.budget."""
    arguments = {"_recipe": recipe, "_out": str(out), "settings": list(settings) or None}
    if shows("calibrate", arguments, print_python):
        return
    with screen.listener(as_json or quiet) as listener:
        budget = api.calibrate(recipe, out, settings=settings, listener=listener)
    screen.show(budget.model_dump(mode="json"), screen.budget, as_json, quiet)


@cli.command(epilog="Example: vitrim slim my.yaml -o slim.safetensors --set slim.target.flops_ratio=0.8")
@click.argument("recipe")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="The .safetensors to write.")
@settings_option
@common
def slim(recipe: str, out: Path, settings: tuple[str, ...], as_json: bool, quiet: bool, print_python: bool) -> None:
    """Make RECIPE's model narrower and write it as a checkpoint, with its widths beside it as JSON."""
    arguments = {"_recipe": recipe, "_out": str(out), "settings": list(settings) or None}
    if shows("slim", arguments, print_python):
        return
    with screen.listener(as_json or quiet) as listener:
        widths = api.slim(recipe, out, settings=settings, listener=listener)
    screen.show(widths.model_dump(mode="json"), screen.widths, as_json, quiet)


@cli.command(epilog="Example: vitrim inspect out/ --target jetpack-5")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--target", help="Lint for this target instead of the bundle's own.")
@common
def inspect(path: Path, target: str | None, as_json: bool, quiet: bool, print_python: bool) -> None:
    """Show the operators of PATH (a bundle or any .onnx) before and after the passes, and lint it."""
    if shows("inspect", {"_path": str(path), "target": target}, print_python):
        return
    result = api.inspect(path, target)
    screen.show(result, screen.inspected, as_json, quiet)
    errors = [finding for finding in result["findings"] if finding["severity"] == "error"]
    if errors:
        raise SystemExit(1)


@cli.command(epilog="Example: vitrim lint model.onnx --target jetpack-5 --target trt-11")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--target", "targets", multiple=True, help="For this target, in detail; may be repeated.  [default: all]")
@common
def lint(path: Path, targets: tuple[str, ...], as_json: bool, quiet: bool, print_python: bool) -> None:
    """Say what targets refuse of PATH (any .onnx, or a bundle), or take and silently compute wrongly.

    Status 1 when a named target refuses it; without --target, when every target does.
    """
    chosen = targets[0] if len(targets) == 1 else list(targets) or None
    if shows("lint", {"_path": str(path), "target": chosen}, print_python):
        return
    result = api.lint(path, chosen)
    screen.show(result, screen.linted, as_json, quiet)
    refused = [bool(verdict["errors"]) for verdict in result["targets"].values()]
    if any(refused) if targets else all(refused):
        raise SystemExit(1)


@cli.command(epilog="Example: vitrim targets --json")
@common
def targets(as_json: bool, quiet: bool, print_python: bool) -> None:
    """List the targets: opset, precisions, what they lack, which Jetsons run them, known faults."""
    if shows("targets", {}, print_python):
        return
    screen.show(api.targets(), screen.targets, as_json, quiet)


@cli.command(epilog="Example: vitrim check out/")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--atol", type=float, help="Largest absolute error of a logit; the bundle's own limits by default.")
@click.option("--threads", type=click.IntRange(1), help="onnxruntime threads; all cores by default.")
@common
def check(
    bundle: Path, atol: float | None, threads: int | None, as_json: bool, quiet: bool, print_python: bool
) -> None:
    """Verify every file of BUNDLE, and hold its graph and engine against PyTorch's golden outputs. Needs no torch."""
    if shows("check", {"_bundle": str(bundle), "atol": atol, "threads": threads}, print_python):
        return
    result = api.check(bundle, atol=atol, threads=threads)
    screen.show(result, screen.parity, as_json, quiet)
    _fail_without_parity(result)


def _fail_without_parity(result: dict[str, Any]) -> None:
    if not result["passed"]:
        from .exporter.runtime.parity import describe_failure

        raise ParityError(describe_failure(result))


@cli.command(epilog="Example: vitrim bench out/ --runs 200")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--runs", default=50, show_default=True, type=click.IntRange(5), help="Interleaved rounds.")
@click.option(
    "--warmup",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0),
    help="Least seconds of warm-up a graph.",
)
@click.option("--threads", type=click.IntRange(1), help="onnxruntime threads; all cores by default.")
@click.option("--cuda-graph/--no-cuda-graph", help="Launch engines as CUDA graphs; the other way is told besides.")
@click.option("--copies/--no-copies", help="Time engines with the copies to and from the GPU.")
@click.option("--energy", is_flag=True, help="Measure joules an image besides, in loops of its own.")
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here, as JSON.")
@click.option("--allow-slower", is_flag=True, help="Do not fail when the pruned graph is not faster.")
@common
def bench(
    bundle: Path,
    runs: int,
    warmup: float,
    threads: int | None,
    cuda_graph: bool,
    copies: bool,
    energy: bool,
    out: Path | None,
    allow_slower: bool,
    as_json: bool,
    quiet: bool,
    print_python: bool,
) -> None:
    """Time the dense, pruned and floor graphs of BUNDLE, interleaved, on this machine. Needs no torch."""
    asked = {"runs": runs, "warmup": warmup, "threads": threads, "out": None if out is None else str(out)}
    flags = {"cuda_graph": cuda_graph, "copies": copies, "energy": energy}
    options: dict[str, Any] = asked | {key: True for key, given in flags.items() if given}
    if shows("bench", {"_bundle": str(bundle), **options}, print_python):
        return
    with screen.listener(as_json or quiet) as listener:
        listener.stage("bench")
        result = api.bench(bundle, **options, progress=listener.progress)
    screen.show(result, screen.benched, as_json, quiet)
    if not allow_slower and result["ratios"]["speedup"]["interval"][0] <= 1:
        raise NotFasterError(f"the pruned graph is {result['verdict']}; allow it with --allow-slower")


@cli.command(epilog="Example: vitrim compare orin.json xavier.json out/")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@common
def compare(results: tuple[Path, ...], as_json: bool, quiet: bool, print_python: bool) -> None:
    """Lay benchmarks side by side: RESULTS are bundles, or what `vitrim bench -o` wrote on several devices."""
    if shows("compare", {"_results": [str(path) for path in results]}, print_python):
        return
    screen.show(api.compare(results), screen.compared, as_json, quiet)


@cli.command(epilog="Example: vitrim build out/   (on the Jetson or the machine with the GPU)")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--workspace",
    default=1024,
    show_default=True,
    type=click.IntRange(16),
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
@click.option("--dla-core", type=click.IntRange(0), help="Run on this DLA core what can; the GPU takes the rest.")
@click.option("--any-precision", is_flag=True, help="Keep an engine whose layers run in another precision.")
@common
def build(
    bundle: Path,
    workspace: int,
    timing_cache: Path | None,
    no_timing_cache: bool,
    version_compatible: bool,
    hardware_compatible: Any,
    dla_core: int | None,
    any_precision: bool,
    as_json: bool,
    quiet: bool,
    print_python: bool,
) -> None:
    """Build BUNDLE's engine with this machine's TensorRT, prove it, and publish the bundle with it. Needs no torch."""
    if timing_cache and no_timing_cache:
        raise click.UsageError("--timing-cache and --no-timing-cache exclude each other")
    options: dict[str, Any] = {"workspace_mib": workspace}
    given = {
        "timing_cache": False if no_timing_cache else (str(timing_cache) if timing_cache else None),
        "version_compatible": version_compatible or None,
        "hardware_compatible": hardware_compatible,
        "dla_core": dla_core,
        "strict": False if any_precision else None,
    }
    options |= {key: value for key, value in given.items() if value is not None}
    if shows("build", {"_bundle": str(bundle), **options}, print_python):
        return
    result = api.build(bundle, **options)
    screen.show(result, screen.built, as_json, quiet)
    _fail_without_parity(result)


@cli.command(epilog="Example: vitrim recipes --schema > recipe.schema.json")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a recipe instead.")
@common
def recipes(schema: bool, as_json: bool, quiet: bool, print_python: bool) -> None:
    """List the recipes that ship."""
    if shows("recipes", {}, print_python):
        return
    if schema:
        from .recipes.pipeline.recipe import json_schema

        click.echo(json.dumps(json_schema(), indent=2))
        return
    screen.show(api.recipes(), screen.shipped, as_json, quiet)


@cli.command(epilog="Example: vitrim methods --json")
@common
def methods(as_json: bool, quiet: bool, print_python: bool) -> None:
    """List the pruning methods: what each does, its parameters, the options of a stage, its presets."""
    if shows("methods", {}, print_python):
        return
    screen.show(api.methods(), screen.methods, as_json, quiet)


@cli.command(epilog="Example: vitrim models dinov2")
@click.argument("wanted", default="")
@common
def models(wanted: str, as_json: bool, quiet: bool, print_python: bool) -> None:
    """Say which of timm's models vitrim takes, and why not the others; WANTED is part of a family's or model's name."""
    if shows("models", {"_wanted": wanted} if wanted else {}, print_python):
        return
    with screen.listener(quiet or as_json) as listener:
        listener.stage("models")
        found = api.models(wanted, listener.progress)
    screen.show([family.to_dict() for family in found], screen.families, as_json, quiet)


@cli.command(epilog="Example: vitrim new deit_small_patch16_224 -o deit.yaml")
@click.argument("model")
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; standard output by default.",
)
@common
def new(model: str, out: Path | None, as_json: bool, quiet: bool, print_python: bool) -> None:
    """Write a commented recipe for MODEL, a timm name."""
    if shows("new", {"_model": model}, print_python):
        return
    text = api.new(model)
    if out is None:
        click.echo(json.dumps({"recipe": text}) if as_json else text, nl=as_json)
        return
    if out.exists():
        raise click.UsageError(f"{out} exists; name another file")
    atomic_write(out, text)
    screen.show(
        {"written": str(out)},
        lambda result, console: console.print(f"wrote {result['written']}"),
        as_json,
        quiet,
    )


@cli.command(epilog="Example: vitrim doctor --json")
@common
def doctor(as_json: bool, quiet: bool, print_python: bool) -> None:
    """Say what this machine has, what each lack costs, and how to get it."""
    if shows("doctor", {}, print_python):
        return
    screen.show([check.to_dict() for check in api.doctor()], screen.doctor, as_json, quiet)


def main() -> None:
    """Run the command line; every foreseen error is one line and a status, never a traceback."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except VitrimError as error:
        _end(str(error), error.exit_code)
    except click.UsageError as error:
        error.show()
        sys.exit(VitrimError.exit_code)
    except click.ClickException as error:
        _end(error.format_message(), VitrimError.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _end("interrupted; nothing was published", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        from .exporter.core.files import explain_os_error

        _end(str(explain_os_error(error, error.filename or "the output")), VitrimError.exit_code)
    except MemoryError:
        _end("out of memory; take a smaller batch or model", VitrimError.exit_code)


def _end(message: str, status: int) -> None:
    click.echo(f"vitrim: {' '.join(message.split())}", err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
