"""Commands that make something of a model or a recipe: bundles, plans, checkpoints, tables, recipes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...exporter.core.bounds import BATCH, CLASSES, PROFILE_PROCESSES, PROFILE_ROUNDS, THREADS
from ...exporter.core.latency import PROCESSES, ROUNDS
from ...recipes.sweep.wanted import AGREEMENTS, LOOK, RATIOS, SPEEDUPS
from ..call import Call
from ..complete import (
    complete_method,
    complete_methods,
    complete_model,
    complete_precision,
    complete_precisions,
    complete_recipe,
    complete_target,
)
from ..group import (
    command,
    device_option,
    force_option,
    out_option,
    ray_option,
    recipe_argument,
    settings_option,
    track_option,
    workers_option,
)
from ..screens.export import print_export
from ..screens.latency import print_pack, print_table
from ..screens.optimized import print_optimized
from ..screens.plan import print_budget, print_widths
from ..screens.sweep import print_sweep
from ..values import NAMES, NUMBERS

if TYPE_CHECKING:
    from rich.console import Console


ENGINE_MODES = ["auto", "require", "skip"]


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
@click.option(
    "--report/--no-report",
    default=True,
    show_default=True,
    help="Write a page about the bundle beside it: OUT.html, with the bundle's own photos.",
)
@track_option
def export(recipe: str, out: Path, tracker: str | None, device: str | None, **options: Any) -> Call:
    """Take RECIPE (a file, or the name of one that ships) all the way to a bundle."""
    hidden = {"command": sys.argv}
    return Call("export", (recipe, out), _on(device, options), print_export, hidden=hidden, tracker=tracker)


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
        (print_export if {"model", "recipe"} & set(given) else print_optimized)(done, console)

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
    return Call("calibrate", (recipe, out), _on(device, options), print_budget, plain=_model_json)


@command("vitrim profile my.yaml -o table.json --threads 1")
@click.argument("source", metavar="MODEL|RECIPE")
@out_option("The table to write, a .json; with --pack a folder.")
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
@click.option(
    "--pack", is_flag=True, help="Write a folder, whose run_on_device.py makes the table on a device without torch."
)
@settings_option
@force_option
def profile(source: str, out: Path, pack: bool, **options: Any) -> Call:
    """Measure a table of latencies here, for targets that are milliseconds or a speed-up.

    Give it as prune.target.table, with prune.target.latency_ms or prune.target.speedup.
    """
    if not pack:
        return Call("profile", (source, out), options, print_table)
    measured = (options.pop("processes"), options.pop("rounds"))
    if options.pop("force") or measured != (PROCESSES, ROUNDS):
        raise click.UsageError(
            "--pack measures nothing, so --processes and --rounds are for run_on_device.py table; --force is not needed"
        )
    return Call("pack_profile", (source, out), options, print_pack)


@command("vitrim sweep my.yaml -o sweep/ --ratios 0.5,0.65,0.8 --precisions fp32,int8")
@recipe_argument
@out_option("Folder of the sweep; one that was stopped goes on.")
@click.option(
    "--methods", type=NAMES, shell_complete=complete_methods, help="Pruning methods, with commas.  [default: all]"
)
@click.option(
    "--ratios", type=NUMBERS, default=RATIOS, show_default="0.5,0.6,0.7,0.8", help="Shares of the dense model's GMACs."
)
@click.option(
    "--precisions", type=NAMES, shell_complete=complete_precisions, help="Such as fp32,int8.  [default: the recipe's]"
)
@click.option(
    "--agreements",
    type=NUMBERS,
    default=AGREEMENTS,
    show_default="0.99,0.98,0.95",
    help="Shares of images with the dense answer, to find the fastest point for.",
)
@click.option(
    "--speedups",
    type=NUMBERS,
    default=SPEEDUPS,
    show_default="1.2,1.3,1.5",
    help="Speeds over dense, to find the point for that agrees most.",
)
@click.option("--look", default=LOOK, show_default=True, type=click.IntRange(min=1), help="Images of a first look.")
@workers_option
@ray_option
@settings_option
def sweep(recipe: str, out: Path, **options: Any) -> Call:
    """Try methods x budgets x precisions of RECIPE, and write which are worth having, each with its recipe."""
    return Call("sweep", (recipe,), {"out": out, **options}, print_sweep)


@command("vitrim slim my.yaml -o slim.safetensors --set slim.target.flops_ratio=0.8")
@recipe_argument
@out_option("The .safetensors to write.")
@settings_option
@force_option
def slim(recipe: str, out: Path, **options: Any) -> Call:
    """Make RECIPE's model narrower and write it as a checkpoint, with its widths beside it as JSON."""
    return Call("slim", (recipe, out), options, print_widths, plain=_model_json)


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


def _on(device: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Options of a call whose settings begin with a device's."""
    if device is None:
        return options
    from ...recipes.schema.load import device_settings

    return {**options, "settings": (*device_settings(device).items(), *options["settings"])}


def _model_json(plan: Any) -> Any:
    return plan.model_dump(mode="json")
