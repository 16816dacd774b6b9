"""Kernels of the engine that TensorRT for RTX builds, by method and precision, beside the plan's floor and dense.

    python benchmarks/kernels.py
    python benchmarks/kernels.py --model deit_small_patch16_224 --precisions fp16 --ratio 0.65
    python benchmarks/kernels.py --hold tests/data/kernels/held.json

Needs no GPU: the builder lists its kernels. The graphs are those of an export, up to the stage that writes the
precision, and without its limits on answers, so that random weights do; models other than the quickstart's have those.
Written to benchmarks/results/kernels.md with the command. With --hold, a small model's counts are written for the tests
instead, which hold that no count grows: a file in which one would is left alone, unless another builder made it.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

METHODS = ("evit", "ats", "ppt", "tome", "tofu", "frugal", "zero_tprune", "uniform", "random", "slice")
PRECISIONS = ("fp32", "fp16", "int8")
QUICKSTART = "quickstart"
TARGET = "trt-rtx"
RATIO = 0.6
SMALL: dict[str, Any] = {  # of the tests: 65 tokens, heads of 32
    "model": {
        "name": "vit_tiny_patch16_224",
        "args": {"img_size": 64, "patch_size": 8, "embed_dim": 64, "depth": 4, "num_heads": 2, "num_classes": 10},
        "random": 0,
    },
    "images": {"generator": "noise", "count": 1},
}


@dataclass(frozen=True)
class Counts:
    """Kernels of one engine beside those of its floor.

    Attributes:
        kernels, floor: how many there are.
        stages: of the plan; the last one may keep prefix tokens alone.
        by_block: by block with a stage, how many more than the floor there.
        fused, attentions: attentions that are one kernel, of how many.
        copies: kernels that only pad or slice.
        does: by what they do, see `inventory.Kernel`.
    """

    kernels: int
    floor: int
    stages: int
    by_block: dict[str, int]
    fused: int
    attentions: int
    copies: int
    does: dict[str, int]


def recipe_of(model: dict[str, Any] | None, method: str | None, precision: str, ratio: float, batch: int) -> Any:
    """The recipe of a row.

    Args:
        model: the recipe's section; None: the quickstart's.
        method: None: the dense model.
        precision, ratio, batch: of the graphs; share of the dense GMACs.
    """
    from vitrim.recipes.schema.load import load_recipe, recipe_from

    base = load_recipe(QUICKSTART).model_dump(mode="json") if model is None else {"model": model}
    noise = {"generator": "noise", "count": 8}
    own = {key: base[key] for key in ("model",)} | {
        "images": noise if model is not None else base["images"] | {"count": 8},
        "export": {"target": TARGET, "batch": batch},
        "precision": {"name": precision, "agreement": 0.0, "images": 8},
        "parity": {"images": 8, "golden": 1},
    }
    own["prune"] = {"method": method, "target": {"flops_ratio": ratio}}
    if method is None:  # stages that remove nothing are none
        own["prune"] = {"method": "uniform", "keep_rates": {0: 1.0}}
    return recipe_from(own)


def graphs_of(recipe: Any, folder: Path) -> tuple[dict[str, Path], tuple[str, ...], int]:
    """The graphs of an export by kind, the nodes of them that stay in float32, and the number of stages."""
    from vitrim.exporter.core import layout
    from vitrim.exporter.pruning.budget import read_budget
    from vitrim.recipes.listener import Silence
    from vitrim.recipes.pipeline.cache import cache_of
    from vitrim.recipes.pipeline.pack import Pack
    from vitrim.recipes.pipeline.run import STAGES, do_all, open_run
    from vitrim.recipes.stages.graphs import final_graphs
    from vitrim.recipes.stages.precision import Precision, in_manifest

    run = open_run(recipe, cache_of(folder / "out"), Silence())
    with run.cache.locked(run.listener.note):
        do_all(run, STAGES[: STAGES.index(Precision) + 1])
    graphs = final_graphs(run.view(Pack))
    stages = 0
    if "calibrate" in run.folders:
        stages = len(read_budget(run.folders["calibrate"] / layout.BUDGET).stages)
    return graphs.final, tuple(in_manifest(graphs.precision)["float32_nodes"]), stages


def built(graph: Path, precision: Any, pinned: tuple[str, ...], folder: Path) -> Any:
    """The identity of the engine of a graph, which lists its kernels."""
    from vitrim.exporter.runtime.tensorrt.rtx_build import by_rtx
    from vitrim.recipes.inspection.kernels import count_kernels

    return count_kernels(graph, folder, precision, pinned, by_rtx)


def counts(recipe: Any, folder: Path) -> Counts:
    """Build the engines of a recipe's pruned graph and of its floor, and count."""
    from vitrim.exporter.runtime.tensorrt.inventory import beyond

    graphs, pinned, stages = graphs_of(recipe, folder)
    precision = recipe.precision.name
    own = built(graphs["pruned"], precision, pinned, folder)
    floor = built(graphs["floor"], precision, pinned, folder).kernels if "floor" in graphs else own.kernels
    marked = {part.replace("stage", "block") for part in {k.part or "" for k in own.kernels} if "stage" in part}
    more = beyond(own.kernels, floor)
    does = Counter(kernel.does for kernel in own.kernels)
    found = own.layers.attention
    return Counts(
        kernels=len(own.kernels),
        floor=len(floor),
        stages=stages,
        by_block={place.partition(" ")[2]: more.get(place, 0) for place in sorted(marked)},
        fused=found.fused,
        attentions=found.fused + found.not_fused,
        copies=does["pad"] + does["slice"],
        does=dict(sorted(does.items())),
    )


def lines_of(method: str, precision: str, found: Counts, dense: Counts) -> str:
    """A row of the table."""
    choosing = [count for count in found.by_block.values() if count]
    each = " ".join(f"{block}:{count:+d}" for block, count in found.by_block.items() if count)
    most = f"{max(choosing):+d}" if choosing else "0"
    return (
        f"| {method} | {precision} | {dense.kernels} | {found.floor} | {found.kernels} "
        f"| {found.kernels - found.floor:+d} | {each} | {most} | {found.fused} of {found.attentions} "
        f"| {found.does.get('softmax', 0)} | {found.does.get('top-k', 0)} | {found.copies} |"
    )


def hold(path: Path, methods: tuple[str, ...]) -> None:
    """Write a small model's counts where none of them grows.

    Raises:
        click.ClickException: one would; it is named.
    """
    from vitrim.exporter.core.files import atomic_write

    now = {method: small_counts(method) for method in methods}
    before = json.loads(path.read_text()) if path.exists() else {"builder": None, "kernels": {}}
    made: dict[str, Any] = {"builder": builder_version(), "kernels": now}
    if before["builder"] == made["builder"]:
        worse = [line for method in methods for line in grown(method, before["kernels"].get(method, {}), now[method])]
        if worse:
            raise click.ClickException(f"{path} stays as it is: {'; '.join(worse)}")
        made["kernels"] = before["kernels"] | now
    atomic_write(path, json.dumps(made, indent=1) + "\n")


def small_counts(method: str) -> dict[str, int]:
    """By precision, kernels of the engines of a small random model that a method prunes."""
    return {precision: len(engine.kernels) for precision, engine in small_engines(method).items()}


def small_engines(method: str, precisions: Collection[str] = ()) -> dict[str, Any]:
    """By precision, the identities of those engines. Traced alone, without the rest of an export, in a second each.

    Args:
        method: that prunes.
        precisions: none stands for all.
    """
    from vitrim.calibration.tokens.rules import default_rule
    from vitrim.exporter.core.targets import PRECISIONS as EVERY
    from vitrim.exporter.core.targets import get_target
    from vitrim.exporter.graph.files import save
    from vitrim.exporter.graph.passes.rewrite import rewrite
    from vitrim.exporter.graph.trace import trace
    from vitrim.exporter.pruning.methods import get_method
    from vitrim.exporter.pruning.methods.options import parse_parameters
    from vitrim.exporter.pruning.shape import describe
    from vitrim.exporter.pruning.vit import PrunedViT
    from vitrim.recipes.pipeline.open import open_model
    from vitrim.recipes.schema.load import recipe_from

    recipe = recipe_from(SMALL | {"prune": {"method": method, "target": {"flops_ratio": RATIO}}})
    model, target = open_model(recipe), get_target(TARGET)
    shape, values = describe(model), parse_parameters(get_method(method), {}).model_dump(mode="json")
    budget = small_plan(shape, method, values, default_rule(shape, method, values), target.token_multiple)
    traced = trace(PrunedViT(model, budget, compares=True), 1)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in precisions or EVERY:
            graph, pinned = in_precision(rewrite(traced, target, precision=precision)[0], precision)
            save(graph, Path(folder) / f"{precision}.onnx")
            found[precision] = built(Path(folder) / f"{precision}.onnx", precision, pinned, Path(folder))
    return found


def small_plan(shape: Any, method: str, values: dict[str, Any], rule: Any, multiple: int) -> Any:
    """A plan by the count that papers print: its tokens stay, and held counts comparable, when graphs cost less."""
    from vitrim.calibration.tokens import solve
    from vitrim.calibration.tokens.cost import dense_plan, model_macs
    from vitrim.exporter.pruning.methods import get_method

    build, _ = solve.builder(shape, method, values, rule)
    whole, prefix, chosen = shape.tokens - shape.prefix_tokens, shape.prefix_tokens, get_method(method)
    macs, most = RATIO * model_macs(shape, dense_plan(shape)), solve.removable(chosen, prefix, values)

    def cost(kept: Any) -> int:
        return model_macs(shape, build(kept).plan())

    kept = solve.fill_to_target(solve.step_sizes(chosen, whole, most, rule), whole, cost, macs, most)
    assert kept is not None, f"{method} does not reach {RATIO} of the small model"
    steps = (step for step in range(multiple, 0, -1) if multiple % step == 0)
    rounded = (solve.to_multiples(kept, step, whole, prefix, cost, macs, most) for step in steps)
    return build(next(tokens for tokens in rounded if tokens is not None))


def in_precision(graph: Any, precision: Any) -> tuple[Any, tuple[str, ...]]:
    """A float32 graph in a precision, on noise and without a trial, and the nodes that stay in float32."""
    import numpy as np

    from vitrim.exporter.graph.precision.float32_nodes import wide_nodes
    from vitrim.exporter.graph.precision.half import to_half
    from vitrim.exporter.graph.precision.qdq import quantizable, with_qdq
    from vitrim.exporter.graph.precision.ranges import quantization_ranges
    from vitrim.exporter.graph.shapes import with_shapes
    from vitrim.exporter.graph.surgery import import_graph

    if precision == "fp32":
        return graph, ()
    if precision == "int8":
        shape = [dim.dim_value for dim in graph.graph.input[0].type.tensor_type.shape.dim]
        images = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
        ranges = quantization_ranges(graph, list(images), "minmax", symmetric=True)
        graph = with_shapes(with_qdq(graph, ranges, quantizable(graph), "tensorrt"))
    typed = to_half(graph, "bf16" if precision == "bf16" else "fp16", wide_nodes(import_graph(graph)))
    return typed.model, tuple(typed.float32_nodes)


def grown(method: str, before: dict[str, int], now: dict[str, int]) -> list[str]:
    """Counts of a method that are above those before, in words."""
    return [
        f"{method} in {precision} has {count} kernels, {before[precision]} before"
        for precision, count in now.items()
        if count > before.get(precision, count)
    ]


def builder_version() -> str:
    """Major and minor version of the builder: another one makes other kernels."""
    from vitrim.exporter.runtime.tensorrt.family import RTX
    from vitrim.exporter.runtime.tensorrt.versions import dotted, import_tensorrt, version_of

    return dotted(version_of(import_tensorrt(RTX).__version__))


@click.command()
@click.option("--model", default=QUICKSTART, show_default=True, help="Or a timm name, with random weights.")
@click.option("--methods", default=METHODS, multiple=True, show_default=True)
@click.option("--precisions", default=PRECISIONS, multiple=True, show_default=True)
@click.option("--ratio", default=RATIO, show_default=True, help="Share of the dense model's GMACs.")
@click.option("--batch", default=1, show_default=True)
@click.option("--hold", "held", type=click.Path(path_type=Path), help="Write the tests' counts of a small model here.")
@click.option(
    "--out", default=Path("benchmarks/results/kernels.md"), type=click.Path(path_type=Path), show_default=True
)
def main(
    model: str,
    methods: tuple[str, ...],
    precisions: tuple[str, ...],
    ratio: float,
    batch: int,
    held: Path | None,
    out: Path,
) -> None:
    """Build, count, and write the table."""
    from vitrim.exporter.core.files import atomic_write

    if held is not None:
        hold(held, methods)
        return
    section = None if model == QUICKSTART else {"name": model, "random": 0}
    lines = [f"`python {shlex.join(sys.argv)}`", ""]
    lines += [
        f"{model} at {ratio} of the dense GMACs, batch {batch}, TensorRT for RTX {builder_version()}. By slicing: the "
        "same token counts, the first tokens kept. Beyond by block: of blocks with a stage.",
        "",
        "| method | precision | dense | by slicing | kernels | beyond slicing | by block | most | fused attentions "
        "| softmaxes | TopK | pad or slice |",
        "| --- " * 12 + "|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for precision in precisions:
            dense = counts(recipe_of(section, None, precision, ratio, batch), Path(folder))
            for method in methods:
                found = counts(recipe_of(section, method, precision, ratio, batch), Path(folder))
                lines.append(lines_of(method, precision, found, dense))
                click.echo(lines[-1])
                atomic_write(out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
