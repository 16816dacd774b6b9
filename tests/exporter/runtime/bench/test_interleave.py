"""Rounds that are interleaved, repeats, warm-up. No timing is asserted."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from vitrim.exporter.runtime.bench.interleave import interleave, repeat, warm_up


def test_rounds_are_interleaved_and_nobody_always_follows_the_same() -> None:
    order: list[str] = []
    runs = {name: (lambda name=name: order.append(name)) for name in "abc"}
    result = interleave(runs, rounds=60, warmup=0.0)
    assert {name: len(values) for name, values in result.items()} == {"a": 60, "b": 60, "c": 60}
    taken = "".join(order[-180:])
    assert all(set(taken[start : start + 3]) == set("abc") for start in range(0, 180, 3))
    after_c = [taken[place + 1] for place in range(179) if taken[place] == "c"]
    assert 15 < after_c.count("a") < 45


def test_repeats_make_everything_anew_and_keep_rounds_together() -> None:
    made: list[int] = []
    seen: list[tuple[int, int]] = []

    def make() -> dict[str, Callable[[], object]]:
        made.append(len(made))
        return {"a": lambda: None, "b": lambda: None}

    result, sizes = repeat(make, rounds=10, repeats=3, warmup=0.0, progress=lambda *at: seen.append(at))
    assert (made, sizes) == ([0, 1, 2], [4, 3, 3])
    assert {name: len(values) for name, values in result.items()} == {"a": 10, "b": 10}
    assert seen == [(done, 10) for done in range(1, 11)]
    assert repeat(make, rounds=2, repeats=3, warmup=0.0)[1] == [1, 1]


def test_warm_up_ends_even_where_times_never_settle() -> None:
    waits = iter(np.tile([0.0, 0.004], 10_000))
    began = time.perf_counter()
    warm_up(lambda: time.sleep(next(waits)), seconds=0.0)
    assert time.perf_counter() - began < 5
