"""Interleaved benchmark: dense, pruned and the free-slicing floor in one run, so that drift cancels. Torch-free."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..machine.environment import Watch, busy, environment
from .stats import FEWEST, overlap, paired_ratio, summarize

__all__ = ["Watch", "busy", "environment", "interleave", "repeat", "report", "warm_up"]
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
    """Time every entry once a round, in an order drawn anew for every round.

    A rotating order would let each entry always follow the same other one, and inherit its caches.

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
    order = np.random.default_rng(0)
    for index in range(rounds):
        for name in order.permutation(names):
            samples[name][index] = _milliseconds(runs[name])
        if progress:
            progress(index + 1, rounds)
    return samples


def repeat(
    make: Callable[[], Mapping[str, Callable[[], object]]],
    rounds: int,
    repeats: int = 3,
    warmup: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, np.ndarray], list[int]]:
    """`interleave` several times over with everything made anew, for what a whole session shares: memory, placement.

    Args:
        make: makes what to time, by name: sessions loaded anew, the same names each time.
        rounds: in all; spread over the repeats, of which each has at least one.
        repeats: how often everything is made.
        warmup: least seconds of warm-up an entry; a third of it from the second time on.
        progress: called with (rounds done, rounds).

    Returns:
        as `interleave`, and how many rounds each repeat has.
    """
    repeats = max(1, min(repeats, rounds))
    sizes = [len(part) for part in np.array_split(np.arange(rounds), repeats)]
    parts: list[dict[str, np.ndarray]] = []
    for index, size in enumerate(sizes):
        before = sum(sizes[:index])

        def told(done: int, _: int, before: int = before) -> None:
            if progress:
                progress(before + done, rounds)

        parts.append(interleave(make(), size, warmup if index == 0 else warmup / 3, told))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, sizes


def report(
    samples: Mapping[str, np.ndarray],
    batch: int,
    environment: Mapping[str, Any],
    repeats: Sequence[int] | None = None,
) -> dict[str, Any]:
    """`bench.json` from the samples of `dense`, `pruned`, if there `floor`, and the pruned graph in other precisions.

    `speedup` is the median over rounds of dense / pruned, `overhead` that of pruned / floor. A speed-up is claimed only
    where the intervals of both medians lie apart, the paired ratio's interval lies above 1, there are enough rounds
    for a 95 % interval, and every repeat was faster for itself. Any further name is a wider precision of the pruned
    graph: `over_<name>` is the median of its time over that of `pruned`, and the verdict says so where it is not more
    than 1, for then the narrower precision costs accuracy and gives nothing.

    Args:
        samples: by name, [rounds] milliseconds; entry i of all of them belongs to one round.
        batch: images an inference.
        environment: kept as it is.
        repeats: rounds of each repeat, as `repeat` returns them.
    """
    distributions = {name: summarize(values) for name, values in samples.items()}
    ratios = {"speedup": paired_ratio(samples["dense"], samples["pruned"])}
    if "floor" in samples:
        ratios["overhead"] = paired_ratio(samples["pruned"], samples["floor"])
        ratios["ceiling"] = paired_ratio(samples["dense"], samples["floor"])
    wider = [name for name in samples if name not in ("dense", "pruned", "floor")]
    for name in wider:
        ratios[f"over_{name}"] = paired_ratio(samples[name], samples["pruned"])
    low, high = ratios["speedup"]["interval"]
    apart = not overlap(distributions["dense"], distributions["pruned"])
    faster = bool(low > 1)
    again = _each_repeat(samples, repeats)
    enough, steady = len(samples["dense"]) >= FEWEST, all(value > 1 for value in again)
    if faster and not enough:
        verdict = f"no speed-up is claimed: {len(samples['dense'])} rounds are too few for a 95 % interval, take more"
    elif faster and not steady:
        verdict = f"no speed-up is claimed: one repeat of {len(again)} had a ratio of {min(again):.2f}; take more runs"
    elif faster and apart:
        verdict = f"{ratios['speedup']['median']:.2f} times as fast as dense (95 % interval {low:.2f} to {high:.2f})"
    elif faster:
        verdict = (
            "no speed-up is claimed: the intervals of the two medians overlap; take more runs on a quieter machine"
        )
    elif high < 1:
        verdict = f"slower than dense: {ratios['speedup']['median']:.2f} times its speed"
    else:
        verdict = f"not measurably faster than dense (95 % interval of the ratio {low:.2f} to {high:.2f})"
    for name in wider:
        over = ratios[f"over_{name}"]
        if over["interval"][0] <= 1:
            verdict += (
                f"; but no faster than the same graph in {name} ({over['median']:.2f} times its speed, 95 % interval "
                f"{over['interval'][0]:.2f} to {over['interval'][1]:.2f}): take {name}, which is nearer to the model"
            )
    return {
        "unit": "ms",
        "batch": batch,
        "speedup": ratios["speedup"]["median"],
        "overhead": ratios["overhead"]["median"] if "overhead" in ratios else None,
        "claimed": faster and apart and enough and steady,
        "verdict": verdict,
        "images_per_second": {name: 1000 * batch / value["median"] for name, value in distributions.items()},
        "distributions": distributions,
        "ratios": ratios,
        "speedup_by_repeat": again,
        "environment": dict(environment),
    }


def _each_repeat(samples: Mapping[str, np.ndarray], repeats: Sequence[int] | None) -> list[float]:
    """Median of dense / pruned within each repeat."""
    ratios = samples["dense"] / samples["pruned"]
    return [float(np.median(part)) for part in np.split(ratios, np.cumsum(repeats or [len(ratios)])[:-1])]
