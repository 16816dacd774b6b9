"""Energy from meters of known power."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitrim.exporter.runtime.machine import energy
from vitrim.exporter.runtime.machine.energy import Energy, Integral, measure
from vitrim.exporter.runtime.machine.meters import Meter


def clocked(monkeypatch: pytest.MonkeyPatch, *times: float) -> None:
    ticks = iter(times)
    monkeypatch.setattr(energy.time, "perf_counter", lambda: next(ticks))


def test_samples_of_power_are_integrated_by_trapezoids(monkeypatch: pytest.MonkeyPatch) -> None:
    watts = iter([{"a": 2.0}, {"a": 4.0}, {"a": 4.0}])
    integral = Integral(Meter("x", ("a",), ("a",), False, lambda: next(watts)), period=1e9)
    clocked(monkeypatch, 10.0, 11.0, 13.0)
    with integral:
        integral._look()
    assert (integral.joules, integral.seconds, integral.samples) == ({"a": 3.0 + 8.0}, 3.0, 3)


def test_a_counter_is_read_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    joules = iter([{"a": 100.0, "b": 1.0}, {"a": 130.0, "b": 2.0}])
    clocked(monkeypatch, 1.0, 4.0)
    with Integral(Meter("x", ("a", "b"), ("a",), True, lambda: next(joules))) as spent:
        pass
    assert (spent.joules, spent.total(), spent.seconds) == ({"a": 30.0, "b": 1.0}, 30.0, 3.0)


def test_a_meter_that_dies_is_an_error_and_not_a_number() -> None:
    reads = itertools.count()

    def read() -> dict[str, float]:
        if next(reads) == 1:
            raise OSError("gone")
        return {"a": 1.0}

    with pytest.raises(OSError, match="gone"), Integral(Meter("x", ("a",), ("a",), False, read), period=0.001):
        time.sleep(0.05)


class Load:
    """A machine that draws 3 W, and 5 or 13 W while graphs run; its counter is exact."""

    def __init__(self) -> None:
        self.joules, self.watts, self.last = 0.0, 3.0, time.perf_counter()
        self.took: dict[float, list[float]] = {}  # seconds of runs, by their watts

    def counter(self) -> dict[str, float]:
        self.advance()
        return {"rail": self.joules}

    def power(self) -> dict[str, float]:
        return {"rail": self.watts}

    def advance(self) -> None:
        now = time.perf_counter()
        self.joules += self.watts * (now - self.last)
        self.last = now

    def run(self, watts: float, seconds: float) -> None:
        self.advance()
        began, self.watts = self.last, watts
        time.sleep(seconds)
        self.advance()
        self.took.setdefault(watts, []).append(self.last - began)
        self.watts = 3.0


@pytest.mark.slow
@pytest.mark.parametrize("counts", [True, False])
def test_energy_per_image_is_that_above_idle(counts: bool) -> None:
    load = Load()
    meter = Meter("x", ("rail",), ("rail",), counts, load.counter if counts else load.power)
    runs = {"dense": lambda: load.run(13.0, 0.01), "pruned": lambda: load.run(5.0, 0.005)}
    result = measure(runs, 4, meter, seconds=0.6, windows=3, period=0.002)
    spent = result.joules_per_image
    assert spent is not None
    # 10 W above idle over 4 images, and 2 W; a busy machine sleeps longer than it is told to.
    assert spent["dense"].median == pytest.approx(10 * np.median(load.took[13.0]) / 4, rel=0.35)
    assert spent["pruned"].median == pytest.approx(2 * np.median(load.took[5.0]) / 4, rel=0.35)
    assert spent["dense"].above_idle
    assert spent["dense"].with_idle > spent["dense"].median
    assert spent["dense"].range[0] <= spent["dense"].median <= spent["dense"].range[1]
    assert result.idle_watts == pytest.approx(3.0, rel=0.05)
    assert (result.rails, result.counted, result.windows) == (("rail",), ("rail",), 3)
    assert (result.sampling_hz == 0) is counts
    lines = result.lines()
    assert lines[0].startswith("dense 0.0")
    assert "J per image above idle" in lines[0]
    assert lines[-1].endswith("by x: rail")
    assert Energy.from_json(json.loads(json.dumps(result.to_json())), "e") == result
    assert result.per_image("dense") == spent["dense"].median
    unclear = replace(result, joules_per_image={**spent, "pruned": replace(spent["pruned"], above_idle=False)})
    assert unclear.lines()[1] == "pruned: not measurably above idle; take longer loops or a finer meter"
    assert unclear.per_image("pruned") is None


def test_without_a_meter_there_is_a_reason_and_no_number(tmp_path: Path) -> None:
    result = energy.measure_here({"dense": lambda: None}, 1, "cpu", root=tmp_path)
    assert result.joules_per_image is None
    assert set(result.to_json()) == {"joules_per_image", "reason"}
    assert result.lines() == ["not measured: this machine has no meter that can be read (no INA3221, no RAPL)"]
