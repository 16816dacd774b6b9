"""Speed-up over dense and overhead over free slicing, through onnxruntime on this machine's CPU.

    python benchmarks/overhead.py --models deit_small_patch16_224 --ratio 0.652 --batches 1 --batches 8

Random weights: latency does not depend on them. Whole exports are run, so every graph has linted clean and passed the
parity ladder on noise; the figures are those of their bundles, measured again with more rounds. Written to
benchmarks/results/overhead.md with the command, row by row.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

import click

from vitrim import api
from vitrim.exporter.core.files import atomic_write

ALL = ("zero_tprune", "ppt", "frugal", "tome", "tofu", "evit", "evit+fuse", "ats", "uniform", "random")


@click.command()
@click.option("--models", default=("deit_small_patch16_224",), multiple=True, show_default=True)
@click.option("--ratio", default=0.652, show_default=True, help="Share of the dense model's GMACs.")
@click.option("--batches", default=(1, 8), multiple=True, type=int, show_default=True)
@click.option("--methods", default=ALL, multiple=True, help="Names; `evit+fuse` sets a parameter.  [default: all]")
@click.option("--runs", default=40, show_default=True, help="Interleaved rounds.")
@click.option("--repeats", default=3, show_default=True, help="Separate benchmark runs of each bundle.")
@click.option("--out", default=Path("benchmarks/results/overhead.md"), type=click.Path(path_type=Path))
def main(
    models: tuple[str, ...],
    ratio: float,
    batches: tuple[int, ...],
    methods: tuple[str, ...],
    runs: int,
    repeats: int,
    out: Path,
) -> None:
    """Measure and write the table."""
    lines = [f"`python {shlex.join(sys.argv)}`", ""]
    columns = ["model", "method", "batch", "GMACs", "speed-up", "overhead", "same_tokens", "largest_error", "ms"]
    lines += [f"| {' | '.join(columns).replace('_', ' ')} |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    where = ""
    for name in models:
        for method in methods:
            for batch in batches:
                recipe = {
                    "model": {"name": name, "random": 0},
                    "images": {"generator": "noise", "count": 8},
                    "prune": {
                        "method": method.partition("+")[0],
                        "parameters": {"fuse": True} if method.endswith("+fuse") else {},
                        "target": {"flops_ratio": ratio},
                    },
                    "export": {"batch": batch, "attention": "fused"},
                    "parity": {"images": 8, "golden": 1},
                    "bench": {"runs": 10, "allow_slower": True},
                }
                with tempfile.TemporaryDirectory() as folder:
                    done = api.export(recipe, Path(folder) / "out", engine="skip")
                    for _ in range(repeats):
                        bench = api.bench(Path(folder) / "out", runs=runs)
                        cells = []
                        for key in ("speedup", "overhead"):
                            value = bench.ratios[key]
                            cells.append(f"{value.median:.3f} ({value.interval[0]:.3f} to {value.interval[1]:.3f})")
                        rung = done.parity.rungs[-1]
                        same = 1.0 if rung.same_images is None else rung.same_images
                        times = "/".join(f"{v.median:.1f}" for v in bench.distributions.values())
                        cost = done.budget.total_gmacs
                        lines.append(
                            f"| {name} | {method} | {batch} | {cost:.3f} | {' | '.join(cells)} | {same:.0%} "
                            f"| {done.parity.smallest_atol:.1e} | {times} |"
                        )
                        click.echo(lines[-1])
                        atomic_write(out, "\n".join(lines) + "\n")
                        where = f"{bench.environment['cpu']}, {bench.environment['threads']} threads"
    lines += ["", "Speed-up and overhead with 95 % intervals."]
    lines += [f"ms: dense/pruned/floor, fused attention. Machine: {where}."]
    atomic_write(out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
