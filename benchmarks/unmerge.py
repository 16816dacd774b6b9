"""What a patch should get whose token was dropped: cosine of last hidden tokens with the dense model's, on photos.

    python benchmarks/unmerge.py --data DATA --count 100

DATA is described at the top of measure.py; photos of odd classes. Three ways are compared where tokens go without being
merged: their last value, the patch nearest in place among those that are left, and the patch most alike where they
went, which `vitrim.exporter.pruning.unmerge` takes; and EViT's fused token itself. Merged tokens go where they merged
in every column. Written to benchmarks/results/unmerge.md with the command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from measure import MODELS, Row, budget_of, command, load_model, open_subject
from torch import Tensor

from vitrim.calibration.tokens.cost import dense_plan, model_macs
from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.core.layout import PACKED
from vitrim.exporter.pruning.rows import position_in, rows_of
from vitrim.exporter.pruning.shape import with_all_read
from vitrim.exporter.pruning.vit import PrunedViT, State

WAYS = ("last value", "nearest in place", "most alike", "fused token")
ROWS = ("evit", "evit+fuse", "random", "ats", "tofu", "ppt", "zero_tprune", "tome", "frugal")


def far(side: int, tokens: int, prefix: int) -> Tensor:
    """Squared distance in place [tokens, tokens] of every two patches; prefix tokens are out of reach."""
    y, x = np.divmod(np.arange(side * side), side)
    found = np.full((tokens, tokens), 1e9, np.float32)
    found[prefix:, prefix:] = (y[:, None] - y) ** 2 + (x[:, None] - x) ** 2
    return torch.from_numpy(found)


def merged_into(into: Tensor, pairs: Tensor | None) -> Tensor:
    """Ids [batch, tokens] that tokens are after a stage's merges."""
    if pairs is None:
        return into
    for source, target in zip((pairs // PACKED).unbind(1), (pairs % PACKED).unbind(1), strict=True):
        into = torch.where((into == source[:, None]) & (pairs[:, :1] >= 0), target[:, None], into)
    return into


@torch.inference_mode()
def put_back(pruned: PrunedViT, images: Tensor, places: Tensor) -> dict[str, Tensor]:
    """Last hidden tokens [batch, tokens, width] of every patch, by the way that they were put back."""
    state = pruned.start(images, unmerge=True)
    into, old = state.ids, state.x
    gone = torch.zeros_like(into, dtype=torch.bool)
    for row in pruned.budget.blocks:
        before: State = state
        state, decision = pruned.step(row.block, state)
        if decision is None:
            continue
        into = merged_into(into, decision.merged)
        went = ~gone & ~(into.unsqueeze(2) == state.ids.unsqueeze(1)).any(2)
        old = torch.where(went.unsqueeze(2), rows_of(before.x, position_in(before.ids, into)), old)
        gone = gone | went
    final, old = pruned.model.norm(state.x), pruned.model.norm(old)
    stays = rows_of(final, position_in(state.ids, into))
    patches = state.ids.clamp_max(len(places) - 1)
    apart = torch.where(state.ids.unsqueeze(2) < len(places), places[patches], 1e9).transpose(1, 2)
    assert state.home is not None
    found = {
        "last value": torch.where(gone.unsqueeze(2), old, stays),
        "nearest in place": torch.where(gone.unsqueeze(2), rows_of(final, apart.argmin(2)), stays),
        "most alike": rows_of(final, state.home),
    }
    fused = state.ids[:, -1:] >= len(places)
    if bool(fused.any()):
        found["fused token"] = torch.where(gone.unsqueeze(2), final[:, -1:], stays)
    return found


def measure(label: str, model: Any, pixels: np.ndarray, name: str, ratio: float, shape: Any) -> str:
    """A row of the table."""
    method, _, fuse = name.partition("+")
    row = Row(name, method, (("fuse", True),) if fuse else (), final=False)
    budget = budget_of(shape, row, ratio * model_macs(shape, dense_plan(shape)))
    pruned, sums, prefix = PrunedViT(model, budget, ("logits", "grid")), dict.fromkeys(WAYS, 0.0), shape.prefix_tokens
    places = far(round((shape.tokens - prefix) ** 0.5), shape.tokens, prefix)
    for start in range(0, len(pixels), 20):
        images = torch.from_numpy(pixels[start : start + 20].copy())
        with torch.inference_mode():
            dense = model.forward_features(images)[:, prefix:]
        for way, tokens in put_back(pruned, images, places).items():
            sums[way] += float(torch.cosine_similarity(tokens[:, prefix:], dense, dim=-1).mean(1).sum())
    cells = " | ".join(f"{total / len(pixels):.3f}" if total else "-" for total in sums.values())
    return f"| {label} | {name} | {budget.blocks[-1].after - prefix} | {cells} |"


@click.command()
@click.option("--data", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--count", default=100, show_default=True, help="Photos.")
@click.option("--ratio", default=0.65, show_default=True, help="Share of the dense model's GMACs.")
@click.option("--cache", default=Path("benchmarks/.cache"), type=click.Path(path_type=Path))
@click.option("--out", default=Path("benchmarks/results/unmerge.md"), type=click.Path(path_type=Path))
def main(data: Path, count: int, ratio: float, cache: Path, out: Path) -> None:
    """Measure and write the table."""
    lines = [f"`{command(data)}`", "", f"| model | method | patches left | {' | '.join(WAYS)} |", "| --- " * 7 + "|"]
    for label in MODELS:
        subject = open_subject(label, data, cache, count)
        pixels, model = np.load(subject.images, mmap_mode="r"), load_model(label, data)
        for name in ROWS:
            lines.append(measure(label, model, pixels, name, ratio, with_all_read(subject.shape)))
            click.echo(lines[-1])
    lines += ["", f"Mean cosine of {count} photos' patches with the dense model's, after the final norm."]
    atomic_write(out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
