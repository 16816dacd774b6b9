"""`vitrim evaluate` over kinds of workers, and when some of them are killed: the figures, the time, the cost.

    python benchmarks/evaluate.py BUNDLE --images FOLDER [--count 1000] [--ray]

Each row is a run of the same evaluation; `same` says whether every figure is that of the first row, to the last bit.
With --ray, two nodes are simulated on this machine (`ray.cluster_utils`), and a worker, a node and then the driver are
killed midway.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrim.recipes.pools.by_ray import SETTINGS

RESULTS = Path(__file__).parent / "results" / "evaluate.md"
FIGURES = ("answers", "classes", "moved", "mcnemar", "top1_change")


@dataclass(frozen=True)
class Row:
    """One run: what was done to it, its figures, seconds, images that an earlier run had judged."""

    name: str
    figures: dict[str, Any]
    seconds: float
    resumed: int


def command(bundle: Path, images: Path, count: int | None, out: Path, *options: str) -> list[str]:
    """The command line of an evaluation."""
    some = [] if count is None else ["--count", str(count)]
    words = ["evaluate", str(bundle), "--images", str(images), "--threads", "1", "-o", str(out), "--quiet"]
    return [sys.executable, "-m", "vitrim.cli", *words, *some, *options]


def read(name: str, out: Path, began: float) -> Row:
    """A finished run."""
    found = json.loads(out.read_text())
    out.unlink()
    return Row(name, {key: found.get(key) for key in FIGURES}, time.perf_counter() - began, found["resumed"])


def lines(journal: Path) -> int:
    """Shards that a journal has."""
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


def run(name: str, words: list[str], out: Path, meanwhile: Callable[[], None] | None = None) -> Row:
    """Run an evaluation to its end; once two shards are done, something happens to it."""
    began = time.perf_counter()
    process = subprocess.Popen(words)
    if meanwhile is not None:
        after(out, meanwhile, process)
    if process.wait():
        raise SystemExit(f"{name}: {' '.join(words)} ended with {process.returncode}")
    return read(name, out, began)


def after(out: Path, what: Callable[[], None], process: subprocess.Popen[bytes], shards: int = 2) -> None:
    """Do something when so many shards are done."""
    journal = out.with_name(f"{out.name}.journal")
    while process.poll() is None and lines(journal) < shards:
        time.sleep(0.02)
    if process.poll() is None:
        what()


def killed_driver(name: str, words: list[str], out: Path) -> Row:
    """A run whose driver is killed after two shards, and the same command again."""
    process = subprocess.Popen(words)
    after(out, lambda: process.send_signal(signal.SIGKILL), process)
    if process.wait() != -signal.SIGKILL:
        raise SystemExit(f"{name}: the driver was done before it was killed; take more images")
    return run(name, words, out)


def workers() -> list[int]:
    """Process numbers of Ray's actors that evaluate."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = place.read_bytes()
        except OSError:
            continue
        if text.startswith(b"ray::_Worker"):
            found.append(int(place.parent.name))
    return found


@contextmanager
def two_nodes() -> Iterator[Any]:
    """A head without room for work and two nodes of one core each, on this machine."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


def on_ray(words: Callable[..., list[str]], out: Path) -> Iterator[Row]:
    """Rows of two nodes: untouched, a worker killed, a node removed, the driver killed."""
    os.environ.update(SETTINGS)
    with two_nodes() as cluster:
        line = words("--ray", cluster.address)
        yield run("Ray, 2 nodes", line, out)
        yield run("Ray, 2 nodes, a worker killed", line, out, lambda: os.kill(workers()[0], signal.SIGKILL))

        yield killed_driver("Ray, 2 nodes, the driver killed, then resumed", line, out)

        def lose() -> None:
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

        yield run("Ray, 2 nodes, one of them lost", line, out, lose)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--count", type=int)
    parser.add_argument("--ray", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "evaluation.json"

        def words(*options: str) -> list[str]:
            return command(given.bundle.resolve(), given.images.resolve(), given.count, out, *options)

        rows = [run("in process", words(), out), run("2 processes", words("--workers", "2"), out)]
        rows.append(killed_driver("2 processes, the driver killed, then resumed", words("--workers", "2"), out))
        for row in rows:
            print(row.name, f"{row.seconds:.1f} s", flush=True)
        for row in on_ray(words, out) if given.ray else ():
            print(row.name, f"{row.seconds:.1f} s", flush=True)
            rows.append(row)
    RESULTS.write_text(table(rows, given.bundle.name))
    print(RESULTS.read_text())


def table(rows: list[Row], name: str) -> str:
    """The page."""
    first = rows[0].figures
    answers = first["answers"]
    shown = [
        "# One evaluation, many workers",
        "",
        f"`python benchmarks/{Path(__file__).name} {name} --images PHOTOS --ray`, {answers['images']:,} photos, one",
        f"thread a worker: agreement {answers['agreement']:.4f}, divergence {answers['kl']!r} nats.",
        "",
        "| workers | seconds, all in all | images of a killed run | same to the last bit |",
        "| --- | --- | --- | --- |",
        *(
            f"| {row.name} | {row.seconds:.1f} | {row.resumed or ''} | {'yes' if row.figures == first else '**no**'} |"
            for row in rows
        ),
    ]
    return "\n".join(shown) + "\n"


if __name__ == "__main__":
    main()
