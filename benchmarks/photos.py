"""Zero-TPrune on real photos: agreement with the dense model, against controls, and what each part brings.

    python benchmarks/photos.py --data DATA --gmacs 0.81

DATA is described at the top of measure.py. Even classes are for tuning; what is printed is measured on the odd ones,
paired: every row sees the same photos as the dense model. GMACs are those of the pruned model and of what its method
adds. Written to benchmarks/results/photos.md with the command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from measure import MODELS, command, in_percent, load_model, tokens_of

from vitrim.calibration.images.listing import open_images
from vitrim.calibration.images.reading import read_all
from vitrim.calibration.tokens.budgets import from_preset, make_budget
from vitrim.calibration.tokens.cost import dense_plan, model_macs
from vitrim.calibration.tokens.presets import get_preset
from vitrim.calibration.tokens.rules import Rule, default_rule
from vitrim.calibration.tokens.search import search
from vitrim.calibration.tokens.solve import from_target
from vitrim.exporter.core.fidelity import fidelity
from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.pruning.budget import Budget
from vitrim.exporter.pruning.load import preprocessing
from vitrim.exporter.pruning.methods.zero_tprune import PAPER
from vitrim.exporter.pruning.plan import StagePlan
from vitrim.exporter.pruning.shape import ViTShape, describe
from vitrim.exporter.pruning.vit import PrunedViT

OURS = "vitrim's rule (variant)"


def same_tokens(shape: ViTShape, budget: Budget, method: str, parameters: dict[str, Any], **options: Any) -> Budget:
    """A budget with the token counts of another one; `options` go into every stage that chooses."""
    prefix = shape.prefix_tokens
    stages = [
        StagePlan(
            row.block,
            patches=row.after - prefix,
            options={} if row.after == prefix else options | _similar(row.options, options, method),
        )
        for row in budget.stages
    ]
    return make_budget(shape, method, parameters, stages)


def _similar(own: dict[str, Any], given: dict[str, Any], method: str) -> dict[str, Any]:
    if method != "zero_tprune":
        return {}
    return {
        "similar": given.get("similar", own.get("similar", 0)),
        "iterations": given.get("iterations", own.get("iterations", 1)),
    }


def budgets(shape: ViTShape, macs: float) -> dict[str, Budget]:
    """What is compared: the rule, its parts, controls with the same tokens, and the paper's steps at the same cost."""
    ours = from_target(shape, "zero_tprune", {}, macs, default_rule(shape, "zero_tprune", {}))
    published = from_target(shape, "zero_tprune", PAPER, macs, default_rule(shape, "zero_tprune", PAPER, stages=3))
    after = {"place": "after_block", **PAPER}
    plain, early = (Rule(tuple(StagePlan(block, similar=0.3) for block in at)) for at in ((3, 6, 9), (2, 5, 8)))
    result = {
        OURS: ours,
        "same tokens: class attention": same_tokens(shape, ours, "evit", {}),
        "same tokens: uniform": same_tokens(shape, ours, "uniform", {}),
        "same tokens: random, seed 1": same_tokens(shape, ours, "random", {}, seed=1),
        "same tokens: random, seed 2": same_tokens(shape, ours, "random", {}, seed=2),
        "no sizes handed over": same_tokens(shape, ours, "zero_tprune", {"hand_over": False}),
        "importance not in S": same_tokens(shape, ours, "zero_tprune", {"exponent": 0.0}),
        "neither: the paper's S": same_tokens(shape, ours, "zero_tprune", PAPER),
        "the paper's I alone": same_tokens(shape, ours, "zero_tprune", PAPER, similar=0),
        "without VHF": same_tokens(shape, ours, "zero_tprune", {"variance_filter": None}),
        "uniform start (uni)": same_tokens(shape, ours, "zero_tprune", {"start": "uniform"}),
        "head mean instead of RMS": same_tokens(shape, ours, "zero_tprune", {"heads": "mean"}),
        "the paper's steps at three blocks": published,
        "the same, 5 iterations": same_tokens(shape, published, "zero_tprune", PAPER, iterations=5),
        "the same, 30 iterations": same_tokens(shape, published, "zero_tprune", PAPER, iterations=30),
        "the paper's steps at blocks 3 6 9": from_target(shape, "zero_tprune", PAPER, macs, plain),
        "the same: class attention": from_target(shape, "evit", {}, macs, plain),
        "the same: random": same_tokens(shape, from_target(shape, "evit", {}, macs, plain), "random", {}, seed=1),
        "the paper's steps after the blocks 2 5 8": from_target(shape, "zero_tprune", after, macs, early),
    }
    default = from_preset(shape, get_preset("zero-tprune"))
    return result | {"preset zero-tprune (as recollected)": default}


@torch.inference_mode()
def run(model: Any, images: torch.Tensor, budget: Budget | None) -> np.ndarray:
    """Logits over all images; the dense model without a budget."""
    call = model if budget is None else PrunedViT(model, budget)
    return torch.cat([call(piece) for piece in images.split(50)]).numpy()


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="Weights and photos.")
@click.option("--gmacs", "target", default=0.81, show_default=True, help="Cost that no row passes.")
@click.option("--trials", default=0, show_default=True, help="Also search, on 256 photos of even classes.")
@click.option("--only", default=None, help="One of the models.")
@click.option("--out", default=Path("benchmarks/results/photos.md"), type=click.Path(path_type=Path), show_default=True)
def main(data: Path, target: float, trials: int, only: str | None, out: Path) -> None:
    """Measure and write the table."""
    lines = [f"`{command(data)}`", ""]
    for label in MODELS:
        if only and only != label:
            continue
        model = load_model(label, data)
        shape = describe(model)
        source = open_images(
            data / "imagenet_sample", preprocessing(model), classes=shape.classes, every=2, offset=1, count=None
        )
        images = torch.from_numpy(read_all(source))
        dense = run(model, images, None)
        cost = model_macs(shape, dense_plan(shape)) / 1e9
        head = f"{label}, {len(images)} photos of odd classes, dense {cost:.4f} GMACs"
        own = fidelity(dense, dense, source.labels)
        lines += [f"## {head}, top-1 {100 * own.accuracy_dense:.1f} %", ""]
        lines += [
            "| budget | GMACs | tokens | agreement % (95 %) | KL | top-1 % | against ours: only ours / only it agrees |"
        ]
        lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
        ours: np.ndarray | None = None
        rows = budgets(shape, target * 1e9)
        if trials:
            even = open_images(data / "imagenet_sample", preprocessing(model), every=2, count=256)
            ruled = rows[OURS]
            found = search(model, even, ruled, target * 1e9, trials)
            rows = {OURS: ruled, f"search, {trials} trials": found.budget}
            rows["same tokens as searched: class attention"] = same_tokens(shape, found.budget, "evit", {})
            click.echo(f"search: {found.summary()}")
        for title, budget in rows.items():
            logits = run(model, images, budget)
            seen = fidelity(dense, logits, source.labels)
            agrees = dense.argmax(1) == logits.argmax(1)
            ours = agrees if ours is None else ours
            flips = f"{int((ours & ~agrees).sum())} / {int((~ours & agrees).sum())}"
            tokens = tokens_of(budget.stages)
            lines.append(
                f"| {title} | {budget.total_gmacs:.4f} | {tokens} | {in_percent(agrees)} | {seen.kl:.4f} "
                f"| {100 * seen.accuracy_pruned:.1f} | {flips} |"
            )
            click.echo(lines[-1])
        lines.append("")
    atomic_write(out, "\n".join(lines))


if __name__ == "__main__":
    main()
