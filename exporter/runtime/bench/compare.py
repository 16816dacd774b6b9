"""Benchmarks of several devices side by side: what may be compared, and what may be claimed. Torch-free."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import InputError
from ...core.files import read_json
from .. import bundle
from ..commands import identity_of

_SAME = {
    "graph_sha256": "time different graphs (made for other targets, or of other models)",
    "budget_sha256": "have different token budgets",
    "widths_sha256": "are slimmed differently",
    "batch": "have different batches",
    "precision": "have different precisions",
    "cuda_graph": "were timed with and without CUDA graphs",
    "copies": "were timed with and without the copies to and from the GPU",
}


def compare(paths: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """Lay benchmarks side by side, the first one being what the others are held against.

    The machines share no rounds, so a ratio has the widest interval that the two medians' intervals allow, and is
    claimed only where those lie apart and neither machine was busy: what another program took is in no interval.

    Args:
        paths: bundles, or JSON files that `vitrim bench -o` or `run_on_device.py bench -o` wrote.

    Returns:
        `rows` (one a benchmark), `pairs` (each against the first: `ratio`, `interval`, `claimed`, `verdict`) and
        `warnings` (what is not comparable, and what makes a row doubtful).

    Raises:
        InputError: fewer than two, or one that is no benchmark.
    """
    if len(paths) < 2:
        raise InputError("name at least two benchmarks to compare: bundles, or files of `vitrim bench BUNDLE -o FILE`")
    found = [read_result(path) for path in paths]
    names = _names(paths)
    rows = [_row(name, result) for name, result in zip(names, found, strict=True)]
    warnings = [f"{row['name']}: {text}" for row, result in zip(rows, found, strict=True) for text in _doubts(result)]
    for row, result in zip(rows[1:], found[1:], strict=True):
        warnings += [f"{names[0]} and {row['name']} {text}" for text in _differences(found[0], result)]
    return {"rows": rows, "pairs": [_pair(rows[0], row) for row in rows[1:]], "warnings": warnings}


def read_result(path: str | os.PathLike[str]) -> dict[str, Any]:
    """One benchmark, from a bundle (its files are verified) or from a file.

    Raises:
        InputError: it is neither, or damaged.
    """
    place, extra = Path(path), {}
    if place.is_dir():
        extra = {"bundle": identity_of(bundle.verify(place, needs=("bench.json",)))}
        place = place / "bench.json"
    data = read_json(place, "benchmark", "vitrim bench BUNDLE -o FILE")
    try:
        assert isinstance(data, dict)
        result = {**extra, **data}
        _row("", result)
    except (AssertionError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{place} is no benchmark; `vitrim bench BUNDLE -o FILE` writes one") from error
    return result


def _names(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Short names: the last part of each path, or all of it where that would not tell two apart."""
    short = [Path(path).name or os.fspath(path) for path in paths]
    return [name if short.count(name) == 1 else os.fspath(path) for name, path in zip(short, paths, strict=True)]


def _row(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """What is told of one benchmark; latencies are those of the pruned graph, in milliseconds."""
    where, pruned = result["environment"], result["distributions"]["pruned"]
    spent = (result.get("energy") or {}).get("joules_per_image") or {}
    jetson = where.get("jetson") or {}
    board = " ".join(str(part) for part in (jetson.get("power_mode"), where.get("gpu")) if part)
    return {
        "name": name,
        "device": f"{where['cpu']} ({board})" if board else where["cpu"],
        "runtime": where["runtime"],
        "precision": (result.get("bundle") or {}).get("precision") or "unknown",
        "batch": result["batch"],
        "median": pruned["median"],
        "median_interval": list(pruned["median_interval"]),
        "p95": pruned.get("p95"),
        "p99": pruned.get("p99"),
        "images_per_second": result["images_per_second"]["pruned"],
        "speedup": result["ratios"]["speedup"]["median"],
        "speedup_interval": list(result["ratios"]["speedup"]["interval"]),
        "claimed": result["claimed"],
        "overhead": result.get("overhead"),
        "joules_per_image": spent["pruned"]["median"] if spent.get("pruned", {}).get("above_idle") else None,
        "idle_watts": (result.get("energy") or {}).get("idle_watts"),
        "clocks": where.get("clocks", "unknown"),
        "busy": bool(where.get("warning")),
    }


def _facts(result: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same; None where a benchmark does not tell."""
    where = result["environment"]
    engines = str(where["runtime"]).startswith("tensorrt")
    modes = {key: where.get(key) for key in ("cuda_graph", "copies")} if engines else {}
    return {**(result.get("bundle") or {}), "batch": result["batch"], **modes}


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Why two benchmarks are not of the same thing."""
    left, right = _facts(one), _facts(other)
    texts = [text for key, text in _SAME.items() if key in left and key in right and left[key] != right[key]]
    if "graph_sha256" not in left or "graph_sha256" not in right:
        texts.append("cannot be told to time the same graph: one of them does not say which it timed")
    return texts


def _doubts(result: Mapping[str, Any]) -> list[str]:
    """Why one benchmark is to be taken with care."""
    where = result["environment"]
    texts = [where["warning"]] if where.get("warning") else []
    if where.get("clocks") == "floating":
        advice = "; ".join(where.get("clock_advice") or ())
        texts.append(f"its clocks were floating{': ' + advice if advice else ''}")
    board, board_after = where.get("jetson") or {}, where.get("jetson_after") or {}
    for text, before, after in (
        ("its cores were slowed down for heat", where.get("throttle_events"), where.get("throttle_events_after")),
        ("it ran short of power", board.get("overcurrent_events"), board_after.get("overcurrent_events")),
    ):
        if before is not None and after is not None and after > before:
            texts.append(f"{text} {after - before} times meanwhile")
    hot = board_after.get("throttling")
    return [*texts, f"{', '.join(hot)} was on at its end"] if hot else texts


def _pair(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Images a second of one over those of the first."""
    ratio = other["images_per_second"] / first["images_per_second"]
    batches = other["batch"] / first["batch"]
    (least, most), (low, high) = first["median_interval"], other["median_interval"]
    low, high = batches * least / high, batches * most / low
    apart = not low <= 1 <= high  # of both medians' intervals
    busy = [row["name"] for row in (first, other) if row["busy"]]
    claimed = apart and not busy
    span = f"interval {low:.2f} to {high:.2f}"
    if claimed:
        verdict = f"{other['name']} makes {ratio:.2f} times the images a second of {first['name']} ({span})"
    elif apart:
        verdict = (
            f"no difference is claimed between {other['name']} and {first['name']}: {' and '.join(busy)} ran on a busy "
            f"machine ({span})"
        )
    else:
        verdict = (
            f"no difference is claimed between {other['name']} and {first['name']}: their intervals overlap ({span})"
        )
    return {
        "first": first["name"],
        "other": other["name"],
        "ratio": ratio if claimed else None,
        "interval": [low, high],
        "claimed": claimed,
        "verdict": verdict,
    }


__all__ = ["compare", "read_result"]
