"""The gate: measured figures against bounds, and what a person is told of each."""

from __future__ import annotations

import pytest

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.gate import Gate, gate_of
from vitrim.exporter.core.outcome import Figure

FOUND = {"agreement": Figure(0.96, (0.94, 0.98)), "overhead": Figure(1.05, (1.04, 1.06)), "top1_drop": Figure(0.01)}


@pytest.mark.parametrize(
    ("required", "passed"),
    [
        ({"agreement": 0.96, "overhead": 1.05, "top1_drop": 0.01}, True),
        ({"agreement": 0.961}, False),
        ({"overhead": 1.04}, False),
        ({"top1_drop": 0.009}, False),
        ({"speedup": 1.0}, False),
    ],
)
def test_the_figure_itself_has_to_hold(required: dict[str, float], passed: bool) -> None:
    gate = gate_of(required, FOUND, {"speedup": "no clock"})
    assert gate.passed is passed
    assert bool(gate.failure) is not passed
    assert Gate.from_json(gate.to_json(), "gate.json") == gate


def test_every_line_says_bound_figure_and_interval() -> None:
    gate = gate_of({"agreement": 0.97, "overhead": 1.1, "speedup": 1.2}, FOUND, {"speedup": "no clock"})
    assert gate.lines() == [
        "Required: agreement at least 0.97: 96.0 % (95 % interval 94.0 % to 98.0 %): FAILED",
        "Required: overhead at most 1.1: 1.050 (95 % interval 1.040 to 1.060): held",
        "Required: speedup at least 1.2: cannot be judged here: no clock: FAILED",
    ]
    assert gate.failure == (
        "require.agreement at least 0.97: 96.0 % (95 % interval 94.0 % to 98.0 %); "
        "require.speedup at least 1.2: cannot be judged here: no clock"
    )
    with pytest.raises(InputError, match="is of 'energy', but there are agreement"):
        Gate.from_json({"requirements": [{"key": "energy", "bound": 1.0}]}, "gate.json")
