"""What int8 and fp16 bring and cost on this machine's CPU: speed over the dense float32 graph, answers, tokens.

    python benchmarks/precision.py --data DATA

DATA is as for benchmarks/measure.py. Whole exports are run on photos: calibration on even classes, answers on the odd
ones. `agrees` is the share of photos with the top class of the pruned graph in float32, `tokens` the largest share of
a stage's tokens that changed. fp16 graphs are run by onnxruntime, which computes them through casts (so no speed is
told), on the photos and on the photos scaled by 10 and by 100. Written to benchmarks/results/precision.md with the
command, row by row.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from vitrim import api
from vitrim.calibration.images.listing import open_images
from vitrim.calibration.images.reading import read_all
from vitrim.exporter.core.files import atomic_write
from vitrim.exporter.graph.precision.emulate import emulated
from vitrim.exporter.graph.shapes import with_shapes
from vitrim.exporter.pruning.load import create_model, preprocessing
from vitrim.exporter.runtime.rungs import compare_decisions, cosine, stage_names
from vitrim.exporter.runtime.runners import OrtRunner, run_all

VIT = {"name": "vit_tiny_patch16_224", "checkpoint": "vit_tiny_patch16_224.augreg.safetensors"}
DEIT = {"name": "deit_small_patch16_224", "random": 0}
ROWS: tuple[tuple[str, dict[str, Any], str, float, float], ...] = (  # ... GMACs left, agreement to be expected
    ("ViT-Ti", VIT, "evit", 0.652, 0.988),
    ("ViT-Ti, any answer", VIT, "evit", 0.652, 0.0),
    ("DeiT-S, random weights, any answer", DEIT, "evit", 0.652, 0.0),
    ("DeiT-S, random weights", DEIT, "evit", 0.652, 0.988),
)
SCALES = (1, 10, 100)
_HEAD = (
    "| model | method | batch | precision | form, products in float32 / with a scale a token | over dense (95 %) "
    "| over pruned float32 | overhead | agrees | KL | tokens | mean cosine | ms, dense / pruned fp32 / pruned |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def recipe_for(
    model: dict[str, Any], method: str, ratio: float, batch: int, data: Path, precision: str, agreement: float
) -> dict[str, Any]:
    """One export on photos."""
    model = dict(model)
    if "checkpoint" in model:
        model["checkpoint"] = str(data / model["checkpoint"])
    limits = {"agreement": agreement, "cosine": 0.9} if precision == "int8" else {}
    photos = {"path": str(data / "imagenet_sample"), "every": 2}
    return {
        "model": model,
        "images": photos | {"count": 256},
        "evaluate": photos | {"offset": 1, "count": None},
        "prune": {"method": method, "target": {"flops_ratio": ratio}},
        "export": {"batch": batch},
        "precision": {"name": precision, "keep_slower": precision == "fp16"} | limits,
        "parity": {"images": 32, "golden": batch},
        "bench": {"runs": 10, "allow_slower": True},
    }


def cells(bundle: Path, done: Any, runs: int) -> list[str]:
    """One row of the table, timed anew."""
    bench = api.bench(bundle, runs=runs)
    report, seen = done.precision, done.fidelity.precision
    scan = report.scan or {}
    rung = done.parity.rungs[-1]
    over, times = bench.ratios.get("over_fp32"), bench.distributions
    layout = f"{report.form or '-'}, {len(scan.get('float32', []))} / {len(scan.get('scale_a_token', []))}"
    return [
        report.name,
        layout,
        f"{bench.speedup:.2f} ({bench.speedup_interval[0]:.2f} to {bench.speedup_interval[1]:.2f})",
        f"{over.median:.2f}" if over else "-",
        f"{bench.overhead:.2f}",
        f"{seen.agreement:.1%}" if seen else "-",
        f"{seen.kl:.4f}" if seen else "-",
        f"{max(seen.tokens_changed.values()):.1%}" if seen else "-",
        f"{rung.mean_cosine:.5f}",
        " / ".join(f"{times[kind].median:.1f}" for kind in ("dense", "fp32", "pruned") if kind in times),
    ]


def scaled_rows(bundle: Path, images: np.ndarray) -> list[str]:
    """The fp16 graph against the float32 one on photos scaled up, as it is and with every value really rounded."""
    rows = []
    half = onnx.load(bundle / "model.onnx")
    rounding = OrtRunner(emulated(with_shapes(half)).SerializeToString())
    full, runs = OrtRunner(bundle / "model.fp32.onnx"), {"as onnxruntime runs it": OrtRunner(bundle / "model.onnx")}
    for label, runner in (runs | {"every value rounded": rounding}).items():
        for scale in SCALES:
            scaled = images * np.float32(scale)
            ours, theirs = (run_all(each, scaled, each.batch) for each in (full, runner))
            finite = all(np.isfinite(values).all() for values in theirs.values())
            cosines = cosine(ours["logits"], theirs["logits"])
            stages, agreeing = compare_decisions(ours, theirs, stage_names(ours))
            same = min(stage.same_tokens for stage in stages)
            top1 = float((ours["logits"].argmax(1) == theirs["logits"].argmax(1)).mean())
            rows.append(
                f"{label} | x {scale} | {len(images)} | {'yes' if finite else 'NO'} | {cosines.mean():.6f} "
                f"| {cosines.min():.6f} | {cosines[agreeing].min(initial=1):.6f} | {agreeing.mean():.1%} | {same:.2%} "
                f"| {top1:.1%} |"
            )
    return rows


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="Weights and photos.")
@click.option("--only", default=None, help="Rows whose model or method holds this.")
@click.option("--precisions", default=("int8", "fp16"), multiple=True, show_default=True)
@click.option("--batches", default=(1, 8), multiple=True, type=int, show_default=True)
@click.option("--runs", default=40, show_default=True, help="Interleaved rounds.")
@click.option("--out", default=Path("benchmarks/results/precision.md"), type=click.Path(path_type=Path))
def main(
    data: Path, only: str | None, precisions: tuple[str, ...], batches: tuple[int, ...], runs: int, out: Path
) -> None:
    """Measure and write the tables."""
    command = f"`python {shlex.join(sys.argv).replace(str(data), 'DATA')}`"
    table, scaled = [_HEAD], []
    model = create_model(VIT["name"], checkpoint=data / VIT["checkpoint"])
    odd = open_images(data / "imagenet_sample", preprocessing(model), classes=1000, every=2, offset=1, count=128)
    images = read_all(odd)
    for label, source, method, ratio, agreement in ROWS:
        if only and only not in (label, method):
            continue
        for precision in precisions:
            for batch in batches if precision == "int8" else batches[:1]:
                with tempfile.TemporaryDirectory() as folder:
                    bundle = Path(folder) / "out"
                    recipe = recipe_for(source, method, ratio, batch, data, precision, agreement)
                    done = api.export(recipe, bundle, engine="skip")
                    table.append(f"| {label} | {method} | {batch} | {' | '.join(cells(bundle, done, runs))} |")
                    click.echo(table[-1])
                    click.echo(json.dumps((done.precision.scan or {}).get("float32", [])))
                    if precision == "fp16":
                        scaled += [f"| {label} | {method} | {row}" for row in scaled_rows(bundle, images)]
                text = [command, "", *table, ""]
                if scaled:
                    text += [
                        "fp16 graphs on scaled photos, against the pruned graph in float32:", "",
                        "| model | method | run | photos | images | finite | mean cosine | smallest "
                        "| smallest, tokens alike | images with equal tokens | tokens in common, worst stage "
                        "| same top class |",
                        "|" + " --- |" * 12, *scaled, "",
                    ]  # fmt: skip
                atomic_write(out, "\n".join(text))


if __name__ == "__main__":
    main()
