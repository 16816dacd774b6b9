"""All methods at equal GMACs: agreement with dense, divergence, accuracy, and what onnxruntime makes of them.

    python benchmarks/methods.py --data DATA --gmacs-ratio 0.646
    python benchmarks/methods.py --data DATA --only ViT-Ti --speedup 1.4 --out benchmarks/results/methods_latency.md

Without --data only the quickstart model is measured. DATA is described at the top of photos.py; its odd classes are
used, which no rule was tuned on. With --speedup every method gets the GMACs at which it measures that fast. Answers are
measured in parallel processes, latency alone and one after the other. Every row is kept as a file under --cache when it
is done, so that a stopped run goes on where it was. Written to benchmarks/results/methods.md and methods.png with the
command.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

MODELS = {
    "DeiT-Ti": ("deit_tiny_patch16_224", "deit_tiny_patch16_224.fb_in1k.safetensors"),
    "ViT-Ti": ("vit_tiny_patch16_224", "vit_tiny_patch16_224.augreg.safetensors"),
}
QUICKSTART = "quickstart"


@dataclass(frozen=True)
class Row:
    """One method in one configuration.

    Attributes:
        title: for the table.
        method: name in the registry.
        parameters: of the method.
        blocks: where it prunes; None: the method's rule.
        stages: how many stages its rule places; None: the method's own.
        final: whether the last block drops all patches before its MLP.
    """

    title: str
    method: str
    parameters: tuple[tuple[str, Any], ...] = ()
    blocks: tuple[int, ...] | None = None
    stages: int | None = None
    final: bool = False


THIRDS = (3, 6, 9)
ROWS = (
    Row("Zero-TPrune, vitrim's rule", "zero_tprune", final=True),
    Row("Zero-TPrune", "zero_tprune", blocks=THIRDS),
    Row("PPT", "ppt"),
    Row("PPT, free last stage", "ppt", final=True),
    Row("PPT, pooling only (variant)", "ppt", (("policy", "pool"),)),
    Row("PPT, pruning only (variant)", "ppt", (("policy", "prune"),)),
    Row("ToMe in every block", "tome"),
    Row("ToMe in every block, free last stage", "tome", final=True),
    Row("ToMe at 3 blocks, free last stage", "tome", stages=3, final=True),
    Row("frugal merging (vitrim)", "frugal", blocks=(3, 5, 7, 9), final=True),
    Row("frugal merging at 3 to 10 (vitrim)", "frugal", blocks=tuple(range(3, 11)), final=True),
    Row("frugal merging at 3 to 10, no free last stage (vitrim)", "frugal", blocks=tuple(range(3, 11))),
    Row("ToFu in every block", "tofu"),
    Row("EViT", "evit", blocks=THIRDS),
    Row("EViT, fused token", "evit", (("fuse", True),), blocks=THIRDS),
    Row("EViT, vitrim's rule", "evit", final=True),
    Row("ATS in fixed slots", "ats", blocks=THIRDS),
    Row("uniform", "uniform", blocks=THIRDS),
    Row("random", "random", blocks=THIRDS),
)


def load(label: str, data: Path | None) -> tuple[Any, Any]:
    """A model and the source of its test images."""
    from vitrim.calibration.images.listing import open_images
    from vitrim.exporter.pruning.load import create_model, preprocessing
    from vitrim.recipes.pipeline.load import load_recipe
    from vitrim.recipes.pipeline.open import open_model, open_sources, preprocess_of

    if label == QUICKSTART:
        recipe = load_recipe(QUICKSTART)
        model = open_model(recipe)
        preprocess = preprocess_of(recipe, model)
        return model, open_sources(recipe, preprocess, model.num_classes).evaluation
    assert data is not None
    name, file = MODELS[label]
    model = create_model(name, checkpoint=data / file)
    source = open_images(data / "imagenet_sample", preprocessing(model), classes=1000, every=2, offset=1, count=None)
    return model, source


def make_budget(model: Any, row: Row, ratio: float) -> Any:
    """The row's budget at a share of the dense GMACs; blocks are scaled from twelve."""
    from vitrim.calibration.tokens.cost import dense_plan, model_macs
    from vitrim.calibration.tokens.rules import default_rule
    from vitrim.calibration.tokens.solve import from_target
    from vitrim.exporter.pruning.methods import get_method
    from vitrim.exporter.pruning.methods.options import parse_parameters
    from vitrim.exporter.pruning.shape import describe

    shape = describe(model)
    parameters = parse_parameters(get_method(row.method), dict(row.parameters))
    values = parameters.model_dump(mode="json")
    blocks = None if row.blocks is None else [block * shape.depth // 12 for block in row.blocks]
    rule = default_rule(shape, row.method, values, blocks=blocks, stages=row.stages, final=row.final)
    return from_target(shape, row.method, values, ratio * model_macs(shape, dense_plan(shape)), rule)


def answers(label: str, data: Path | None, row: Row | None, ratio: float, threads: int) -> dict[str, Any]:
    """Logits of the dense model (no row) or of a pruned one, and its tokens and cost."""
    import torch

    from vitrim.calibration.images.sources import read_all
    from vitrim.exporter.pruning.vit import PrunedViT

    torch.set_num_threads(threads)
    model, source = load(label, data)
    call, facts = model, {}
    if row is not None:
        budget = make_budget(model, row, ratio)
        call = PrunedViT(model, budget)
        facts = {"gmacs": budget.gmacs["pruned"], "tokens": [[stage.block, stage.after] for stage in budget.stages]}
    images = torch.from_numpy(read_all(source))
    with torch.inference_mode():
        logits = torch.cat([call(piece) for piece in images.split(25)]).numpy()
    labels = None if source.labels is None else np.asarray(source.labels).tolist()
    return facts | {"logits": logits.tolist(), "labels": labels}


def latency(label: str, data: Path | None, row: Row, ratio: float, rounds: int, folder: Path) -> dict[str, Any]:
    """Speed-up over dense and overhead over free slicing at batch 1, fused attention everywhere; graphs in `folder`."""
    from vitrim.exporter.core.targets import get_target
    from vitrim.exporter.graph.files import save
    from vitrim.exporter.graph.passes.rewrite import rewrite
    from vitrim.exporter.graph.trace import trace
    from vitrim.exporter.pruning.vit import PrunedViT
    from vitrim.exporter.runtime.bench.interleave import interleave
    from vitrim.exporter.runtime.bench.stats import paired_ratio
    from vitrim.exporter.runtime.runners import OrtRunner
    from vitrim.recipes.pipeline.kinds import KINDS, budget_of_kind

    model, _ = load(label, data)
    budget = make_budget(model, row, ratio)
    runs = {}
    for kind in KINDS:
        pruned = PrunedViT(model, budget_of_kind(kind, budget))
        image = np.zeros((1, *pruned.shape.image_size), dtype=np.float32)
        path = folder / (f"{label}.dense.onnx" if kind == "dense" else f"{kind}.onnx")
        if kind != "dense" or not path.exists():
            graph, _ = rewrite(trace(pruned, 1), get_target("ort-cpu"), fused_attention=True)
            save(graph, path)
        runs[kind] = partial(OrtRunner(str(path)), image)
    samples = interleave(runs, rounds)
    return {
        "speedup": paired_ratio(samples["dense"], samples["pruned"]).to_json(),
        "overhead": paired_ratio(samples["pruned"], samples["floor"]).to_json(),
        "milliseconds": float(np.median(samples["pruned"])),
    }


def matched(
    label: str, data: Path | None, row: Row, speedup: float, rounds: int, folder: Path, tries: int = 4
) -> dict[str, Any]:
    """The share of the dense GMACs at which a row measures a speed-up, and what was measured there.

    Latency is nearly affine in GMACs, so each try is where the line through the last two meets the wanted latency.
    """
    points: list[tuple[float, dict[str, Any]]] = []
    share = 1.15 / speedup - 0.13
    for _ in range(tries):
        share = float(np.clip(share, 0.4, 0.95))
        points.append((share, latency(label, data, row, share, rounds, folder)))
        time = 1 / points[-1][1]["speedup"]["median"]
        if abs(time * speedup - 1) < 0.006:
            break
        last_share, last_time = (
            (1.0, 1.0) if len(points) == 1 else (points[-2][0], 1 / points[-2][1]["speedup"]["median"])
        )
        slope = (time - last_time) / (share - last_share) if abs(share - last_share) > 1e-6 else 0.9
        share += (1 / speedup - time) / (slope if 0.4 < slope < 1.6 else 0.9)
    share, timed = min(points, key=lambda point: abs(point[1]["speedup"]["median"] - speedup))
    return {"ratio": share, "timed": timed}


def kept_file(cache: Path, **what: Any) -> Path:
    """Where the result of some work is kept."""
    text = json.dumps(what, sort_keys=True, default=lambda value: asdict(value))
    return cache / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}.json"


def write_json(path: Path, value: dict[str, Any]) -> dict[str, Any]:
    """Write by renaming, so that a stopped run leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)
    return value


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of a mean."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (4000, len(values)))].mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def table(label: str, dense: dict[str, Any], rows: list[tuple[Row, dict[str, Any], dict[str, Any]]]) -> Iterator[str]:
    """The lines of one model's table, best agreement first; paired against the best."""
    from vitrim.exporter.core.answers import fidelity

    reference = np.array(dense["logits"])
    labels = None if dense["labels"] is None else np.array(dense["labels"])
    own = reference.argmax(1)
    agreeing = [np.array(found["logits"]).argmax(1) == own for _, found, _ in rows]
    order = np.argsort([-values.mean() for values in agreeing], kind="stable")
    accuracy = "" if labels is None else f", dense top-1 {100 * (own == labels).mean():.1f} %"
    yield f"## {label}, {len(reference)} images{accuracy}"
    yield ""
    yield (
        "| method | GMACs | tokens | agreement % (95 %) | less than the best, points (95 %) | KL | top-1 % "
        "| speed-up | overhead |"
    )
    yield "| --- " * 9 + "|"
    best = agreeing[order[0]].astype(float)
    for index in order:
        row, found, timed = rows[index]
        values = agreeing[index].astype(float)
        seen = fidelity(reference, np.array(found["logits"]), labels)
        low, high = interval(values)
        less_low, less_high = interval(best - values)
        tokens = " ".join(f"{block}:{after}" for block, after in found["tokens"])
        right = "" if labels is None else f"{100 * seen.accuracy_pruned:.1f}"
        timing = [f"{timed[key]['median']:.3f}" if timed else "" for key in ("speedup", "overhead")]
        yield (
            f"| {row.title} | {found['gmacs']:.4f} | {tokens} | {100 * values.mean():.1f} ({100 * low:.1f} to "
            f"{100 * high:.1f}) | {100 * (best - values).mean():.1f} ({100 * less_low:.1f} to {100 * less_high:.1f}) "
            f"| {seen.kl:.4f} | {right} | {' | '.join(timing)} |"
        )
    yield ""


def plot(
    path: Path, models: dict[str, list[tuple[Row, dict[str, Any], dict[str, Any]]]], dense: dict[str, Any]
) -> None:
    """Agreement over measured speed-up, one panel a model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(
        1, len(models), figsize=(5 * len(models) + 3.5, 5), squeeze=False, layout="constrained"
    )
    numbers: dict[str, int] = {}
    for panel, (label, rows) in zip(panels[0], models.items(), strict=True):
        own = np.array(dense[label]["logits"]).argmax(1)
        points = []
        for row, found, timed in rows:
            number = numbers.setdefault(row.title, len(numbers) + 1)
            agreement = 100 * float((np.array(found["logits"]).argmax(1) == own).mean())
            points.append((timed["speedup"]["median"], agreement, number))
        front = sorted(p for p in points if not any(o[0] >= p[0] and o[1] >= p[1] and o[:2] != p[:2] for o in points))
        panel.plot([x for x, _, _ in front], [y for _, y, _ in front], color="#0b6e4f", zorder=1)
        best = {number for _, _, number in front}
        for x, y, number in points:
            panel.text(
                x,
                y,
                str(number),
                fontsize=8,
                ha="center",
                va="center",
                color="white",
                bbox={"boxstyle": "circle,pad=0.25", "fc": "#0b6e4f" if number in best else "0.55", "ec": "none"},
            )
        panel.set(title=label, xlabel="times as fast as dense (onnxruntime, batch 1)", ylabel="agreement with dense, %")
        panel.set_xlim(min(x for x, _, _ in points) - 0.03, max(x for x, _, _ in points) + 0.03)
        spread = max(y for _, y, _ in points) - min(y for _, y, _ in points) or 1.0
        panel.set_ylim(min(y for _, y, _ in points) - 0.06 * spread, max(y for _, y, _ in points) + 0.06 * spread)
        panel.grid(alpha=0.3)
    legend = "\n".join(f"{number:2d}  {title}" for title, number in numbers.items())
    panels[0][-1].text(1.04, 1.0, legend, transform=panels[0][-1].transAxes, va="top", fontsize=8, linespacing=1.7)
    figure.savefig(path, dpi=110)


@click.command()
@click.option("--data", default=None, type=click.Path(exists=True, path_type=Path), help="Weights and photos.")
@click.option("--gmacs-ratio", "ratio", default=0.646, show_default=True, help="Share of the dense GMACs for all rows.")
@click.option("--speedup", default=None, type=float, help="Match rows by measured speed-up at batch 1, not by GMACs.")
@click.option("--only", default=None, help="One of quickstart, DeiT-Ti, ViT-Ti.")
@click.option("--rows", "wanted", multiple=True, help="Only rows whose title matches one of these.")
@click.option("--rounds", default=60, show_default=True, help="Interleaved benchmark rounds a row; 0 measures none.")
@click.option("--processes", default=2, show_default=True, help="Processes that measure answers, of one thread each.")
@click.option("--cache", default=Path("benchmarks/.cache"), type=click.Path(path_type=Path), show_default=True)
@click.option(
    "--out", default=Path("benchmarks/results/methods.md"), type=click.Path(path_type=Path), show_default=True
)
def main(
    data: Path | None,
    ratio: float,
    speedup: float | None,
    only: str | None,
    wanted: tuple[str, ...],
    rounds: int,
    processes: int,
    cache: Path,
    out: Path,
) -> None:
    """Measure what is not measured yet, and write table and plot."""
    import tempfile

    from vitrim.exporter.core.files import atomic_write
    from vitrim.exporter.runtime.machine.environment import environment

    labels = [label for label in (QUICKSTART, *(MODELS if data else ())) if only in (None, label)]
    chosen = [row for row in ROWS if not wanted or any(re.search(part, row.title) for part in wanted)]
    timed: dict[tuple[str, Row], dict[str, Any]] = {}
    ratios: dict[tuple[str, Row], float] = {(label, row): ratio for label in labels for row in chosen}
    with tempfile.TemporaryDirectory() as folder:
        for label, row in ratios if speedup else ():
            path = kept_file(cache, kind="matched", label=label, row=row, speedup=speedup, rounds=rounds)
            if not path.exists():
                write_json(path, matched(label, data, row, float(speedup or 0), rounds, Path(folder)))
                click.echo(f"matched latency of {label}: {row.title}")
            at = json.loads(path.read_text())
            ratios[label, row], timed[label, row] = at["ratio"], at["timed"]
    jobs: dict[tuple[str, Row | None], Path] = {
        (label, row): kept_file(cache, kind="answers", label=label, row=row, ratio=ratios[label, row] if row else None)
        for label in labels
        for row in (None, *chosen)
    }
    todo = [job for job, path in jobs.items() if not path.exists()]
    with ProcessPoolExecutor(processes) as pool:
        running = {
            pool.submit(answers, label, data, row, ratios[label, row] if row else 0.0, 1): (label, row)
            for label, row in todo
        }
        for number, future in enumerate(as_completed(running)):
            label, row = running[future]
            write_json(jobs[label, row], future.result())
            click.echo(f"[{number + 1}/{len(todo)}] answers of {label}: {row.title if row else 'dense'}")
    found = {job: json.loads(path.read_text()) for job, path in jobs.items()}
    with tempfile.TemporaryDirectory() as folder:
        for label in labels if not speedup else ():
            for row in chosen:
                path = kept_file(cache, kind="latency", label=label, row=row, ratio=ratio, rounds=rounds)
                if rounds and not path.exists():
                    write_json(path, latency(label, data, row, ratio, rounds, Path(folder)))
                    click.echo(f"latency of {label}: {row.title}")
                timed[label, row] = json.loads(path.read_text()) if rounds else {}
    machine = environment()
    arguments = [argument if argument != str(data) else "DATA" for argument in sys.argv]
    lines = [f"`python {shlex.join(arguments)}`", ""]
    models = {label: [(row, found[label, row], timed[label, row]) for row in chosen] for label in labels}
    dense = {label: found[label, None] for label in labels}
    for label, rows in models.items():
        lines += table(label, dense[label], rows)
    how = f"All rows at {ratio} of the dense GMACs at most."
    if speedup:
        how = f"All rows at about {speedup} times the dense model's speed, each with the GMACs that this takes."
    lines += [
        f"{how} Speed-up over dense and overhead over free slicing: onnxruntime, batch 1, fused attention, no decision "
        f"outputs, {machine['cpu']}, {machine['threads']} threads."
    ]
    atomic_write(out, "\n".join(lines) + "\n")
    if rounds:
        plot(out.with_suffix(".png"), models, dense)
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
