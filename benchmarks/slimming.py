"""Slimmed models before and after: parameters, file size, GMACs, latency, answers.

    python benchmarks/slimming.py --data DATA

The quickstart model with every method and rule, ViT-Ti on the photos with the zero-shot score (decided on classes of
even index, measured on odd ones; DATA is described at the top of measure.py), and Swin-T with random weights. Whole
exports are run; a row is what its bundle says. Written to benchmarks/results/slimming.md with the command.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from vitrim import api
from vitrim.exporter.core.files import atomic_write
from vitrim.recipes.pipeline.load import load_recipe

XPRUNER = {"method": "xpruner"}
HEADER = """| model | how | million parameters | ONNX MB | GMACs | ms, batch 1 | speed-up (95 %) | top-1 | agreement | narrower = masked |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""  # noqa: E501


def quickstart(slim: dict[str, Any], prune: dict[str, Any] | None = None) -> dict[str, Any]:
    """The quickstart's recipe with a slim section."""
    recipe = load_recipe("quickstart").model_dump(mode="json", exclude_none=True)
    recipe["images"]["count"] = 256
    return recipe | {"slim": slim, "prune": prune, "bench": {"runs": 60, "allow_slower": True}}


def photos(data: Path, slim: dict[str, Any], prune: dict[str, Any] | None = None) -> dict[str, Any]:
    """ViT-Ti on the photos."""
    folder = {"path": str(data / "imagenet_sample"), "every": 2, "count": None}
    model = {"name": "vit_tiny_patch16_224", "checkpoint": str(data / "vit_tiny_patch16_224.augreg.safetensors")}
    return {
        "model": model,
        "images": folder | {"offset": 0, "count": 256},
        "evaluate": folder | {"offset": 1},
        "slim": slim,
        "prune": prune,
        "bench": {"runs": 60, "allow_slower": True},
    }


def rows(data: Path | None) -> list[tuple[str, str, dict[str, Any]]]:
    """(model, how, recipe) of every row."""
    found = []
    for share in (0.8, 0.6):
        target = {"target": {"flops_ratio": share}}
        percent = f"{share:.0%}"
        found += [
            ("quickstart", f"Taylor, {percent}", quickstart(target)),
            ("quickstart", f"Taylor, no repair, {percent}", quickstart(target | {"repair": False})),
            ("quickstart", f"Taylor, learned rates, {percent}", quickstart(target | {"rule": "thresholds"})),
            ("quickstart", f"X-Pruner, absolute sum, {percent}", quickstart(target | XPRUNER)),
            (
                "quickstart",
                f"X-Pruner, learned rates, {percent}",
                quickstart(target | XPRUNER | {"rule": "thresholds"}),
            ),
        ]
    both = quickstart({"target": {"flops_ratio": 0.7}}, {"method": "zero_tprune", "target": {"flops_ratio": 0.45}})
    found.append(("quickstart", "Taylor, 70%, then Zero-TPrune, 45%", both))
    if data is not None:
        for share in (0.9, 0.8):
            target = {"target": {"flops_ratio": share}}
            found.append(("ViT-Ti, photos", f"Taylor, {share:.0%}", photos(data, target)))
        found.append(
            (
                "ViT-Ti, photos",
                "Taylor, no repair, 90%",
                photos(data, {"target": {"flops_ratio": 0.9}, "repair": False}),
            )
        )
        plan = {"method": "frugal", "target": {"flops_ratio": 0.6}}
        found.append(
            ("ViT-Ti, photos", "Taylor, 90%, then frugal, 60%", photos(data, {"target": {"flops_ratio": 0.9}}, plan))
        )
    swin = {
        "model": {"name": "swin_tiny_patch4_window7_224", "random": 0},
        "images": {"generator": "noise", "count": 16},
        "slim": {"target": {"flops_ratio": 0.7}},
        "bench": {"runs": 40, "allow_slower": True},
    }
    return [*found, ("Swin-T, random weights", "Taylor, 70%", swin)]


def measure(recipe: dict[str, Any]) -> str:
    """One row's figures."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        done = api.export(recipe, out, engine="skip")
        sizes = [(out / name).stat().st_size / 1e6 for name in ("dense.onnx", "model.onnx")]
    assert done.widths is not None
    (macs, narrow), (whole, left) = done.widths.costs["gmacs"], done.widths.costs["parameters"]
    narrow = narrow if done.budget is None else done.budget.gmacs["pruned"]
    (low, high), seen = done.bench.speedup_interval, done.fidelity
    top1 = "-" if seen.accuracy_dense is None else f"{seen.accuracy_dense:.1%} to {seen.accuracy_pruned:.1%}"
    rung = next(rung for rung in done.parity.rungs if rung.name == "torch: narrower = masked")
    cells = (
        f"{whole / 1e6:.2f} to {left / 1e6:.2f}",
        f"{sizes[0]:.1f} to {sizes[1]:.1f}",
        f"{macs:.3f} to {narrow:.3f}",
        f"{done.bench.dense.median:.2f} to {done.bench.pruned.median:.2f}",
        f"{done.bench.speedup:.2f} ({low:.2f} to {high:.2f})",
        top1,
        f"{seen.agreement:.1%}",
        f"{rung.smallest_atol:.1e}",
    )
    return " | ".join(cells)


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Weights and photos, see measure.py.")
@click.option("--only", default="", help="Rows whose model or way has this in its name.")
@click.option("--out", default=Path("benchmarks/results/slimming.md"), type=click.Path(path_type=Path))
def main(data: Path | None, only: str, out: Path) -> None:
    """Measure and write the table."""
    text = f"`python {shlex.join(sys.argv)}`\n\n{HEADER}"
    for model, how, recipe in rows(data):
        if only not in model and only not in how:
            continue
        line = f"| {model} | {how} | {measure(json.loads(json.dumps(recipe)))} |\n"
        click.echo(line, nl=False)
        text += line
    atomic_write(out, text + "\nBefore and after; the percentage is of the dense GMACs. onnxruntime on the CPU.\n")


if __name__ == "__main__":
    main()
