"""Interleaved benchmark: dense, pruned and the free-slicing floor in one run, so that drift cancels. Torch-free."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

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


def _milliseconds(run: Callable[[], object], clock: Callable[[], int] = time.perf_counter_ns) -> float:
    began = clock()
    run()
    return (clock() - began) / 1e6


def interleave(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    warmup: float | None = 0.5,
    progress: Callable[[int, int], None] | None = None,
    clock: Callable[[], int] = time.perf_counter_ns,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Time every entry once per round, in an order drawn anew for every round.

    A rotating order would let each entry always follow the same other one, and inherit its caches.

    Args:
        runs: what to time, by name; each call is one inference.
        rounds: how many rounds.
        warmup: least seconds of warm-up per entry; None: there is none.
        progress: called with (rounds done, rounds).
        clock: gives nanoseconds.
        seed: of the orders.

    Returns:
        by name, [rounds] milliseconds; entry i of all of them belongs to one round.
    """
    names = list(runs)
    for name in names if warmup is not None else ():
        warm_up(runs[name], warmup or 0.0)
    samples = {name: np.empty(rounds) for name in names}
    order = np.random.default_rng(seed)
    for index in range(rounds):
        for name in order.permutation(names):
            samples[name][index] = _milliseconds(runs[name], clock)
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
        warmup: least seconds of warm-up per entry; a third of it from the second time on.
        progress: called with (rounds done, rounds).

    Returns:
        as `interleave`, and how many rounds each repeat has.
    """
    repeats = max(1, min(repeats, rounds))
    sizes = [len(part) for part in np.array_split(np.arange(rounds), repeats)]
    parts: list[dict[str, np.ndarray]] = []
    for index, size in enumerate(sizes):
        before = sum(sizes[:index])

        def shifted(done: int, _: int, before: int = before) -> None:
            if progress:
                progress(before + done, rounds)

        parts.append(interleave(make(), size, warmup if index == 0 else warmup / 3, shifted))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, sizes
