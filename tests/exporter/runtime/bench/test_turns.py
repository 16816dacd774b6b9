"""Graphs timed in several processes: groups that fit into memory, medians over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitrim.exporter.core.targets import get_target
from vitrim.exporter.runtime.bench import turns
from vitrim.exporter.runtime.bench.turns import Samples, in_groups, measure


def test_the_base_is_in_every_group_and_nothing_twice() -> None:
    sizes = {"a": 5, "base": 2, "b": 5, "c": 50, "d": 1}
    assert list(in_groups(sizes, "base", 100)) == [["base", "a", "b", "c", "d"]]
    assert list(in_groups(sizes, "base", 12)) == [["base", "a", "b"], ["base", "c"], ["base", "d"]]


def test_samples_are_medians_over_processes() -> None:
    samples = Samples(20.0, {"dense": np.ones(4), "pruned": np.array([0.5, 0.7, 0.6, 9.0])})
    assert samples.milliseconds("pruned") == pytest.approx(13.0)
    assert samples.milliseconds("dense") == 20.0
    assert samples.spread == pytest.approx((0 + (2.775 - 0.575) / 0.65) / 2)


def test_every_process_is_a_new_one_with_orders_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Counting:
        """Stands in for processes: says when one was started."""

        def __init__(self, workers: int) -> None:
            assert workers == 1

        def map(self, make: Callable[[], Any], items: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
            ((seed, files),) = items
            seen.append((seed, sorted(files)))
            found: Mapping[str, float] = {name: 1.0 if name == "dense" else seed / 10 for name in files}
            yield items[0], (found, 4.0 + len(seen))

    monkeypatch.setattr(turns, "Processes", Counting)
    monkeypatch.setattr(turns, "in_groups", lambda sizes, base: [["dense", "a"], ["dense", "b"]])
    files = {name: Path(name) for name in ("dense", "a", "b")}
    told: list[tuple[int, int]] = []
    found = measure(files, "dense", get_target("ort-cpu"), 1, 3, 5, lambda *at: told.append(at), seed=4)
    assert (
        seen == [(seed, ["dense", one] if one != "a" else ["a", "dense"]) for seed in (4, 5, 6) for one in "ab"]
        or [sorted(names) for _, names in seen] == [["a", "dense"], ["b", "dense"]] * 3
    )
    assert [seed for seed, _ in seen] == [4, 4, 5, 5, 6, 6]
    assert found.base == 7.5
    assert found.shares["dense"].tolist() == [1, 1, 1]  # once a process
    assert found.shares["b"].tolist() == [0.4, 0.5, 0.6]
    assert told[-1] == (6, 6)
