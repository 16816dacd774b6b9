"""Slimmed models before and after: parameters, file size, GMACs, latency, answers.

    python benchmarks/slimming.py --data DATA
    python benchmarks/slimming.py --data DATA --answers --out benchmarks/results/slimming_answers.md

The quickstart model with every method and rule, ViT-Ti on the photos with the zero-shot score (decided on classes of
even index, measured on odd ones; DATA is described at the top of measure.py), and Swin-T with random weights. Whole
exports are run; a row is what its bundle says. Written to benchmarks/results/slimming.md with the command.

With --answers nothing is exported: DeiT-Ti and ViT-Ti are slimmed, their tokens pruned to the same GMACs with and
without slimming, and their answers compared with the dense model's, photo by photo.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from vitrim import api
from vitrim.calibration.images.reading import read_all
from vitrim.calibration.tokens.rules import default_rule
from vitrim.calibration.tokens.solve import from_target
from vitrim.exporter.core.fidelity import fidelity
from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.methods.options import parse_parameters
from vitrim.exporter.pruning.shape import describe
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.recipes.listener import Silence
from vitrim.recipes.pipeline.open import open_model, open_sources, preprocess_of
from vitrim.recipes.schema.load import load_recipe
from vitrim.recipes.schema.recipe import Recipe
from vitrim.recipes.stages.slim import slim_by

MODELS = {
    "DeiT-Ti": ("deit_tiny_patch16_224", "deit_tiny_patch16_224.fb_in1k.safetensors"),
    "ViT-Ti": ("vit_tiny_patch16_224", "vit_tiny_patch16_224.augreg.safetensors"),
}
XPRUNER = {"method": "xpruner"}
JOINT = "frugal"  # the method whose tokens go where both are pruned
SHARES = (0.975, 0.95, 0.9)  # of the dense GMACs that slimming leaves
HEADER = """| model | how | million parameters | ONNX MB | GMACs | ms, batch 1 | speed-up (95 %) | top-1 | agreement | narrower = masked |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""  # noqa: E501
ANSWERS = """| model | how | GMACs | agreement (95 %) | KL from dense | top-1 |
| --- | --- | --- | --- | --- | --- |
"""


def quickstart(slim: dict[str, Any], prune: dict[str, Any] | None = None) -> dict[str, Any]:
    """The quickstart's recipe with a slim section."""
    recipe = load_recipe("quickstart").model_dump(mode="json", exclude_none=True)
    recipe["images"]["count"] = 256
    return recipe | {"slim": slim, "prune": prune, "bench": {"runs": 60, "allow_slower": True}}


def photos(data: Path, label: str, slim: dict[str, Any], prune: dict[str, Any] | None = None) -> dict[str, Any]:
    """A model on the photos, decided on even classes, measured on odd ones."""
    folder = {"path": str(data / "imagenet_sample"), "every": 2, "count": None}
    name, file = MODELS[label]
    return {
        "model": {"name": name, "checkpoint": str(data / file)},
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
        plan = {"method": JOINT, "target": {"flops_ratio": 0.6}}
        for label in MODELS:
            target = {"target": {"flops_ratio": 0.9}}
            found += [
                (f"{label}, photos", "Taylor, 90%", photos(data, label, target)),
                (f"{label}, photos", "Taylor, no repair, 90%", photos(data, label, target | {"repair": False})),
                (f"{label}, photos", "Taylor, 80%", photos(data, label, {"target": {"flops_ratio": 0.8}})),
                (f"{label}, photos", f"Taylor, 90%, then {JOINT}, 60%", photos(data, label, target, plan)),
            ]
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
    narrow = narrow if done.budget is None else done.budget.total_gmacs
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


def answers(data: Path, label: str) -> Iterator[str]:
    """Lines of one model's table: slimmed, and at equal GMACs by tokens alone and by both."""
    wanted = {share: Recipe.model_validate(photos(data, label, {"target": {"flops_ratio": share}})) for share in SHARES}
    recipe = wanted[SHARES[0]]
    model = open_model(recipe)
    sources = open_sources(recipe, preprocess_of(recipe, model), model.num_classes)
    images, labels = torch.from_numpy(read_all(sources.evaluation)), sources.evaluation.labels

    @torch.inference_mode()
    def ask(call: Any) -> np.ndarray:
        return torch.cat([call(piece) for piece in images.split(25)]).numpy()

    def line(how: str, macs: float, logits: np.ndarray) -> str:
        seen = fidelity(dense, logits, labels)
        low, high = seen.agreement_interval
        top1 = f"{seen.accuracy_dense:.1%} to {seen.accuracy_pruned:.1%}"
        agreement = f"{seen.agreement:.1%} ({low:.1%} to {high:.1%})"
        return f"| {label} | {how} | {macs:.3f} | {agreement} | {seen.kl:.4f} | {top1} |"

    dense = ask(model)
    bases = {"tokens alone": model}
    for share, each in wanted.items():
        assert each.slim is not None
        done = slim_by(each.slim, model, sources.calibration, Silence())
        yield line(f"slimmed to {share:.1%}", done.widths.costs["gmacs"][1], ask(done.model))
        bases[f"slimmed to {share:.1%}, then tokens"] = done.model
    values = parse_parameters(get_method(JOINT), {}).model_dump(mode="json")
    for gmacs in (0.8095, 0.7, 0.6, 0.5):
        for how, base in bases.items():
            shape = describe(base)
            budget = from_target(shape, JOINT, values, gmacs * 1e9, default_rule(shape, JOINT, values))
            yield line(how, budget.total_gmacs, ask(PrunedViT(base, budget)))


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Weights and photos, see measure.py.")
@click.option("--only", default="", help="Rows whose model or way has this in its name.")
@click.option("--answers", "only_answers", is_flag=True, help="Slimming against tokens at equal GMACs; no exports.")
@click.option("--out", default=Path("benchmarks/results/slimming.md"), type=click.Path(path_type=Path))
def main(data: Path | None, only: str, only_answers: bool, out: Path) -> None:
    """Measure and write the table."""
    text = f"`python {shlex.join(sys.argv)}`\n\n"
    if only_answers:
        if data is None:
            raise click.UsageError("--answers needs --data")
        text += ANSWERS
        for label in (label for label in MODELS if only in label):
            for line in answers(data, label):
                click.echo(line)
                text += line + "\n"
        text += "\nOdd classes; intervals are of 95 %. Nothing is trained.\n"
        atomic_write(out, text.replace(str(data), "DATA"))
        return
    text += HEADER
    for model, how, recipe in rows(data):
        if only not in model and only not in how:
            continue
        line = f"| {model} | {how} | {measure(json.loads(json.dumps(recipe)))} |\n"
        click.echo(line, nl=False)
        text += line
    text = text if data is None else text.replace(str(data), "DATA")
    atomic_write(out, text + "\nBefore and after; the percentage is of the dense GMACs. onnxruntime on the CPU.\n")


if __name__ == "__main__":
    main()
