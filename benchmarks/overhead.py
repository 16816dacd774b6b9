"""Speed-up over dense and overhead over free slicing, through onnxruntime on this machine's CPU.

    python benchmarks/overhead.py --models deit_small_patch16_224 --ratio 0.652 --batches 1 --batches 8

Random weights: latency does not depend on them. Whole exports are run; the figures are those of their bundles, measured
again with more rounds. Written to benchmarks/results/overhead.md with the command.
"""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

import click

from vitrim import api
from vitrim.exporter.files import atomic_write


@click.command()
@click.option("--models", default=("deit_small_patch16_224",), multiple=True, show_default=True)
@click.option("--ratio", default=0.652, show_default=True, help="Share of the dense model's GMACs.")
@click.option("--batches", default=(1, 8), multiple=True, type=int, show_default=True)
@click.option("--methods", default=("zero_tprune", "evit"), multiple=True, show_default=True)
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
    lines += ["| model | method | batch | GMACs | speed-up (interval) | overhead (interval) | attention | ms |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- |"]
    where = ""
    for name in models:
        for method in methods:
            for batch in batches:
                recipe = {
                    "model": {"name": name, "random": 0},
                    "images": {"generator": "noise", "count": 8},
                    "prune": {"method": method, "target": {"flops_ratio": ratio}},
                    "export": {"batch": batch},
                    "parity": {"images": batch, "golden": 1},
                    "bench": {"runs": 10, "allow_slower": True},
                }
                with tempfile.TemporaryDirectory() as folder:
                    done = api.export(recipe, Path(folder) / "out", engine="skip")
                    for _ in range(repeats):
                        bench = api.bench(Path(folder) / "out", runs=runs)
                        cells = []
                        for key in ("speedup", "overhead"):
                            value = bench["ratios"][key]
                            cells.append(
                                f"{value['median']:.3f} ({value['interval'][0]:.3f} to {value['interval'][1]:.3f})"
                            )
                        forms = "/".join(done.bench["attention"][kind]["form"] for kind in ("dense", "pruned", "floor"))
                        times = "/".join(f"{v['median']:.1f}" for v in bench["distributions"].values())
                        cost = done.budget.gmacs["pruned"]
                        lines.append(
                            f"| {name} | {method} | {batch} | {cost:.3f} | {' | '.join(cells)} | {forms} | {times} |"
                        )
                        click.echo(lines[-1])
                        where = f"{bench['environment']['cpu']}, {bench['environment']['threads']} threads"
    lines += ["", f"ms and attention: dense/pruned/floor. Machine: {where}."]
    atomic_write(out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
