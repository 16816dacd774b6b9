"""Benchmarks of several devices side by side: what may be compared, and what may be claimed. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core import layout
from ...core.errors import InputError, excerpt, visible
from ...core.inputs import is_folder, read_json
from ...core.layout import Kind
from ...core.records import Record, optional
from ..bundles.verify import verify_bundle
from .report import Bench, TimedBundle

_SAME = {
    "graph_sha256": "time different graphs (made for other targets, or of other models)",
    "budget_sha256": "have different token budgets",
    "widths_sha256": "are slimmed differently",
    "batch": "have different batches",
    "precision": "have different precisions",
    "cuda_graph": "were timed with and without CUDA graphs",
    "copies": "were timed with and without the copies to and from the GPU",
}


@dataclass(frozen=True)
class Row(Record):
    """One benchmark of a comparison; latencies are those of the pruned graph, in milliseconds.

    Attributes:
        name: of the bundle or file.
        device: processor, and board where there is one.
        runtime, precision, batch: that it was timed in.
        median, median_interval, p95, p99: of the pruned graph; percentiles None where there are too few samples.
        images_per_second: of the pruned graph.
        speedup, speedup_interval: over the dense graph.
        claimed: whether that speed-up may be claimed.
        overhead: over free slicing to the same tokens; None without a floor.
        joules_per_image: above idle; None where it was not measured.
        idle_watts: while nothing runs; None where it was not measured.
        clocks: `locked`, `floating` or `unknown`.
        busy: whether other work was running.
        threads: of the CPU, where that computed; None elsewhere, or where it is not said.
    """

    name: str
    device: str
    runtime: str
    precision: str
    batch: int
    median: float
    median_interval: tuple[float, float]
    p95: float | None
    p99: float | None
    images_per_second: float
    speedup: float
    speedup_interval: tuple[float, float]
    claimed: bool
    overhead: float | None
    joules_per_image: float | None
    idle_watts: float | None
    clocks: str
    busy: bool
    threads: int | None = optional()


@dataclass(frozen=True)
class Pair(Record):
    """One benchmark against the first.

    Attributes:
        first, other: their names.
        ratio: images per second of the other over those of the first; None where nothing is claimed.
        interval: of the ratio, the widest that the two medians' intervals allow.
        claimed: whether a difference is.
        verdict: in words.
    """

    first: str
    other: str
    ratio: float | None
    interval: tuple[float, float]
    claimed: bool
    verdict: str


@dataclass(frozen=True)
class Comparison(Record):
    """Benchmarks side by side.

    Attributes:
        rows: one per benchmark.
        pairs: each against the first.
        warnings: what is not comparable, and what makes a row doubtful.
    """

    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    warnings: tuple[str, ...]


def compare(paths: Sequence[str | os.PathLike[str]]) -> Comparison:
    """Lay benchmarks side by side, the first one being what the others are held against.

    The machines share no rounds, so a ratio has the widest interval that the two medians' intervals allow, and is
    claimed only where those lie apart and neither machine was busy: what another program took is in no interval.

    Args:
        paths: bundles, or JSON files that `vitrim bench -o` or `run_on_device.py bench -o` wrote.

    Raises:
        InputError: fewer than two, or one that is no benchmark.
    """
    if len(paths) < 2:
        raise InputError("name at least two benchmarks to compare: bundles, or files of `vitrim bench BUNDLE -o FILE`")
    found = [read_bench(path) for path in paths]
    names = _names(paths)
    warnings = [f"{name}: {text}" for name, result in zip(names, found, strict=True) for text in _doubts(result)]
    for name, result in zip(names[1:], found[1:], strict=True):
        warnings += [f"{names[0]} and {name} {text}" for text in _differences(found[0], result)]
    rows = [_row(name, result) for name, result in zip(names, found, strict=True)]
    return Comparison(tuple(rows), tuple(_pair(rows[0], row) for row in rows[1:]), tuple(warnings))


def read_bench(path: str | os.PathLike[str]) -> Bench:
    """One benchmark, from a bundle (its files are verified) or from a file.

    Raises:
        InputError: it is neither, or damaged.
    """
    place, timed = Path(path), None
    if is_folder(place):
        manifest = verify_bundle(place)
        if layout.BENCH not in manifest.files:
            how = f"`vitrim bench {place} -o FILE` or `python3 run_on_device.py bench -o FILE`"
            raise InputError(f"{place} holds no benchmark: time it on its device by {how}, and compare that file")
        timed = TimedBundle.of(manifest)
        place = place / layout.BENCH
    data = read_json(place, "benchmark", "vitrim bench BUNDLE -o FILE")
    try:
        found = Bench.from_json(data, os.fspath(place))
    except InputError as error:
        raise InputError(f"{place} is no benchmark; `vitrim bench BUNDLE -o FILE` writes one ({error})") from error
    return found if found.bundle else replace(found, bundle=timed)


def _names(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Short names: the last part of each path, or all of it where two would have the same."""
    short = [Path(path).name or os.fspath(path) for path in paths]
    return [name if short.count(name) == 1 else os.fspath(path) for name, path in zip(short, paths, strict=True)]


def _row(name: str, bench: Bench) -> Row:
    where, energy = bench.conditions, bench.energy
    board = " ".join(part for part in (where.jetson.power_mode, where.gpu) if part)
    return Row(
        name=visible(name),
        device=excerpt(f"{where.cpu} ({board})" if board else where.cpu),
        runtime=excerpt(where.runtime),
        precision=excerpt((bench.bundle.precision if bench.bundle else None) or "unknown"),
        batch=bench.batch,
        median=bench.pruned.median,
        median_interval=bench.pruned.median_interval,
        p95=bench.pruned.p95,
        p99=bench.pruned.p99,
        images_per_second=bench.images_per_second[Kind.PRUNED],
        speedup=bench.speedup,
        speedup_interval=bench.speedup_interval,
        claimed=bench.claimed,
        overhead=bench.overhead,
        joules_per_image=energy.per_image(Kind.PRUNED) if energy else None,
        idle_watts=energy.idle_watts if energy else None,
        clocks=excerpt(where.clocks),
        busy=bool(bench.warning),
        threads=(where.device.threads or where.threads) if where.runtime.endswith("-cpu") else None,
    )


def _facts(bench: Bench) -> dict[str, Any]:
    """What must be the same; what a benchmark does not say is not in it, or None."""
    engines = bench.runtime.startswith("tensorrt")
    modes = {key: bench.environment.get(key) for key in ("cuda_graph", "copies")} if engines else {}
    return {**(bench.bundle.to_json() if bench.bundle else {}), "batch": bench.batch, **modes}


def _differences(one: Bench, other: Bench) -> list[str]:
    """Why two benchmarks are not of the same thing."""
    left, right = _facts(one), _facts(other)
    texts = [text for key, text in _SAME.items() if key in left and key in right and left[key] != right[key]]
    if "graph_sha256" not in left or "graph_sha256" not in right:
        texts.append("may not time the same graph: one of them does not say which it timed")
    return texts


def _doubts(bench: Bench) -> list[str]:
    """Why one benchmark is to be taken with care."""
    where = bench.conditions
    texts = [where.warning] if where.warning else []
    if bench.cpu_only:
        texts.append(f"it says nothing of its target ({bench.cpu_only})")
    if where.clocks == "floating":
        advice = "; ".join(where.clock_advice)
        texts.append(f"its clocks were floating{': ' + advice if advice else ''}")
    for text, before, after in (
        ("its cores were slowed down for heat", where.throttle_events, where.throttle_events_after),
        ("it ran short of power", where.jetson.overcurrent_events, where.jetson_after.overcurrent_events),
    ):
        if before is not None and after is not None and after > before:
            texts.append(f"{text} {after - before} times meanwhile")
    hot = where.jetson_after.throttling
    texts += [f"{', '.join(hot)} was on at its end"] if hot else []
    return [excerpt(text, 400) for text in texts]


def _pair(first: Row, other: Row) -> Pair:
    """Images per second of one over those of the first."""
    ratio = other.images_per_second / first.images_per_second
    batches = other.batch / first.batch
    (least, most), (low, high) = first.median_interval, other.median_interval
    low, high = batches * least / high, batches * most / low
    apart = not low <= 1 <= high  # of both medians' intervals
    busy = [row.name for row in (first, other) if row.busy]
    claimed, span = apart and not busy, f"interval {low:.2f} to {high:.2f}"
    if claimed:
        verdict = f"{other.name} makes {ratio:.2f} times the images per second of {first.name} ({span})"
    else:
        reason = f"{' and '.join(busy)} ran on a busy machine" if apart else "their intervals overlap"
        verdict = f"no difference is claimed between {other.name} and {first.name}: {reason} ({span})"
    return Pair(first.name, other.name, ratio if claimed else None, (low, high), claimed, verdict)
