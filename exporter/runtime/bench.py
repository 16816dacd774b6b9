"""Interleaved benchmark: dense, pruned and the free-slicing floor in one run, so that drift cancels. Torch-free."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .stats import overlap, paired_ratio, summarize

_SETTLED = 0.05  # warm-up ends when two windows of runs agree within 5 %
_WARMUP_LIMIT = 4.0  # ... or after this many times the least warm-up


def warm_up(run: Callable[[], object], seconds: float) -> float:
    """Run for at least `seconds` and until two windows of five runs agree; bounded.

    Returns:
        median milliseconds of the last window.
    """
    began, last = time.perf_counter(), float("inf")
    while True:
        window = np.median([_milliseconds(run) for _ in range(5)])
        spent = time.perf_counter() - began
        settled = abs(window - last) <= _SETTLED * window
        if (spent >= seconds and settled) or spent >= max(seconds, 0.2) * _WARMUP_LIMIT:
            return float(window)
        last = float(window)


def _milliseconds(run: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - began) / 1e6


def interleave(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Time every entry once a round, in an order that rotates from round to round.

    Args:
        runs: what to time, by name; each call is one inference.
        rounds: how many rounds.
        warmup: least seconds of warm-up an entry.
        progress: called with (rounds done, rounds).

    Returns:
        by name, [rounds] milliseconds; entry i of all of them belongs to one round.
    """
    names = list(runs)
    for name in names:
        warm_up(runs[name], warmup)
    samples = {name: np.empty(rounds) for name in names}
    for index in range(rounds):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            samples[name][index] = _milliseconds(runs[name])
        if progress:
            progress(index + 1, rounds)
    return samples


def report(samples: Mapping[str, np.ndarray], batch: int, environment: Mapping[str, Any]) -> dict[str, Any]:
    """`bench.json` from the samples of `dense`, `pruned` and, if there, `floor`.

    `speedup` is the median over rounds of dense / pruned, `overhead` that of pruned / floor. A speed-up is claimed only
    where the intervals of both medians lie apart and the paired ratio's interval lies above 1.
    """
    distributions = {name: summarize(values) for name, values in samples.items()}
    ratios = {"speedup": paired_ratio(samples["dense"], samples["pruned"])}
    if "floor" in samples:
        ratios["overhead"] = paired_ratio(samples["pruned"], samples["floor"])
        ratios["ceiling"] = paired_ratio(samples["dense"], samples["floor"])
    low, high = ratios["speedup"]["interval"]
    apart = not overlap(distributions["dense"], distributions["pruned"])
    faster = bool(low > 1)
    if faster and apart:
        verdict = f"{ratios['speedup']['median']:.2f} times as fast as dense (95 % interval {low:.2f} to {high:.2f})"
    elif faster:
        verdict = (
            "no speed-up is claimed: the intervals of the two medians overlap; take more runs on a quieter machine"
        )
    elif high < 1:
        verdict = f"slower than dense: {ratios['speedup']['median']:.2f} times its speed"
    else:
        verdict = f"not measurably faster than dense (95 % interval of the ratio {low:.2f} to {high:.2f})"
    return {
        "unit": "ms",
        "batch": batch,
        "speedup": ratios["speedup"]["median"],
        "overhead": ratios["overhead"]["median"] if "overhead" in ratios else None,
        "claimed": faster and apart,
        "verdict": verdict,
        "images_per_second": {name: 1000 * batch / value["median"] for name, value in distributions.items()},
        "distributions": distributions,
        "ratios": ratios,
        "environment": dict(environment),
    }


def environment(threads: int | None = None) -> dict[str, Any]:
    """What a reader must know about the machine; nothing is changed."""
    loads = os.getloadavg() if hasattr(os, "getloadavg") else (0.0, 0.0, 0.0)
    cores = os.cpu_count() or 1
    return {
        "cpu": cpu_name(),
        "cores": cores,
        "threads": threads or cores,
        "load_average": [round(value, 2) for value in loads],
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "onnxruntime": _version("onnxruntime"),
        "tensorrt": _version("tensorrt"),
    }


def busy(loads: Mapping[str, Any]) -> str | None:
    """A warning when other work was running before the benchmark began."""
    load, cores = loads["load_average"][0], loads["cores"]
    if load <= 0.5 * cores:
        return None
    return f"the machine was busy (load average {load:.1f} on {cores} cores): take absolute times with care"


def cpu_name() -> str:
    """Model name of the processor."""
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        if line.lower().startswith(("model name", "hardware")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
