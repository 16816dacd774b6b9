"""CPU seconds and peak memory of whole exports, by stage: what an export costs as models grow.

    python benchmarks/export_cost.py --models deit_small_patch16_224 --models vit_large_patch16_224

Every model is exported in a process of its own, with one thread, random weights and noise images. Larger models get
fewer images and rounds, as a person in a hurry would give them. Written to benchmarks/results/export_cost.md.
"""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

ROWS = {  # rounds, images that decide and that measure, images of the proof
    "deit_tiny_patch16_224": (50, 64, 32),
    "deit_small_patch16_224": (20, 64, 32),
    "deit_base_patch16_224": (5, 8, 8),
    "vit_large_patch16_224": (5, 2, 2),
}


class Clock:
    """A listener that notes CPU seconds where a stage begins."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float]] = []

    def stage(self, name: str, cached: bool = False) -> None:
        """A stage begins, and the one before has ended."""
        self.rows.append((name, time.process_time()))

    def progress(self, done: int, total: int) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


def measure(name: str) -> dict[str, Any]:
    """Export one model in this process."""
    from vitrim import api

    runs, images, proof = ROWS[name]
    recipe = {
        "model": {"name": name, "random": 0},
        "images": {"generator": "noise", "count": images},
        "evaluate": {"generator": "noise", "count": images, "seed": 1},
        "prune": {"method": "zero_tprune", "target": {"flops_ratio": 0.65}},
        "parity": {"images": proof},
        "bench": {"runs": runs, "threads": 1, "allow_slower": True},
        "engine": {"mode": "skip"},
    }
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        done = api.export(recipe, os.path.join(folder, "out"), listener=clock)
    clock.stage("end")
    return {
        "seconds": time.process_time(),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "passed": done.parity.passed,
        "stages": [(stage, end - start) for (stage, start), (_, end) in pairwise([("imports", 0.0), *clock.rows])],
    }


@click.command()
@click.option("--models", default=tuple(ROWS), multiple=True, type=click.Choice(list(ROWS)), show_default=True)
@click.option("--out", default=Path("benchmarks/results/export_cost.md"), type=click.Path(path_type=Path))
@click.option("--one", is_flag=True, hidden=True, help="Measure the model in this process, and print it as JSON.")
def main(models: tuple[str, ...], out: Path, one: bool) -> None:
    """Measure and write the table."""
    if one:
        click.echo(json.dumps(measure(models[0])))
        return
    from vitrim.exporter.core.files import atomic_write

    lines = [f"`python {shlex.join(sys.argv)}`", "", "| model | CPU s | peak MB | parity | CPU s by stage |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for name in models:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "VITRIM_STAGES": ""}
        command = [sys.executable, __file__, "--one", "--models", name]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in row["stages"])
        passed = "passed" if row["passed"] else "failed"
        lines.append(f"| {name} | {row['seconds']:.1f} | {row['peak']:,.0f} | {passed} | {stages} |")
        click.echo(lines[-1])
    atomic_write(out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
