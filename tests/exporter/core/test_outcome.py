"""Outcomes: which end of an interval counts, how many images a bound needs, and what a person is told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.fidelity import Fidelity
from vitrim.exporter.core.outcome import (
    AGREEMENT,
    KL,
    MEASURES,
    TOP1_DROP,
    Figure,
    Judged,
    Outcome,
    Tried,
    Wish,
    best_of,
    fewest_images,
    outcome_of,
)

SEEN = Fidelity(500, 0.986, 0.01, 0.8, 0.79, 9, 4, (0.008, 0.012))
PROMISED = AGREEMENT.read(SEEN)
MADE = Outcome("agreement", 0.97, 500, PROMISED, (Tried(0.9, PROMISED, True),), wish=Wish(1.5, 1.25))


def test_the_worse_end_of_the_interval_holds_a_bound() -> None:
    assert PROMISED.interval == pytest.approx((0.9714, 0.9932), abs=1e-4)
    assert AGREEMENT.holds_surely(PROMISED, 0.971)
    assert not AGREEMENT.holds_surely(PROMISED, 0.972)
    drop = TOP1_DROP.read(SEEN)
    assert drop.value == 0.01
    assert drop.interval == pytest.approx((-0.0051, 0.0250), abs=1e-4)
    assert (TOP1_DROP.holds_surely(drop, 0.026), TOP1_DROP.holds_surely(drop, 0.024)) == (True, False)
    assert (KL.holds_surely(KL.read(SEEN), 0.012), KL.holds_surely(KL.read(SEEN), 0.0119)) == (True, False)


def test_a_mean_of_few_images_has_no_end_to_hold_anything() -> None:
    assert KL.read(replace(SEEN, images=29)).interval is None
    assert not KL.holds_surely(KL.read(replace(SEEN, images=29)), 1.0)
    with pytest.raises(InputError, match="top1_drop is of images with labels"):
        TOP1_DROP.read(Fidelity(5, 1.0, 0.0))


@pytest.mark.parametrize(("measure", "bound", "least"), [(AGREEMENT, 0.97, 125), (TOP1_DROP, 0.01, 276), (KL, 0.1, 30)])
def test_the_fewest_images_that_can_show_a_bound(measure: object, bound: float, least: int) -> None:
    name = next(name for name, one in MEASURES.items() if one is measure)
    found = MEASURES[name]
    assert fewest_images(found, bound) == least
    assert found.holds_surely(best_of(found, least), bound)
    assert not found.holds_surely(best_of(found, least - 1), bound)


@given(st.sampled_from(["agreement", "top1_drop"]), st.floats(0.001, 0.999))
def test_no_fewer_do(name: str, bound: float) -> None:
    least = fewest_images(MEASURES[name], bound)
    assert least is not None
    assert MEASURES[name].holds_surely(best_of(MEASURES[name], least), bound)
    assert least == 1 or not MEASURES[name].holds_surely(best_of(MEASURES[name], least - 1), bound)


def test_no_number_of_images_shows_what_cannot_be_shown() -> None:
    assert fewest_images(AGREEMENT, 1 - 1e-9) is None


@pytest.mark.parametrize(
    ("got", "verdict"),
    [(0.972, "kept"), (0.968, "missed, which so few images cannot tell from kept"), (0.9, "missed")],
)
def test_what_other_images_gave_is_told(got: float, verdict: str) -> None:
    judged = MADE.judged_by(replace(SEEN, agreement=got), True, "PyTorch")
    asked, found, wish = judged.lines()
    assert asked == (
        "Asked: agreement with the dense model of at least 97.0 %. Promised: 98.6 % (95 % interval 97.1 % to 99.3 %) "
        "on 500 calibration images, plans tried: 1"
    )
    assert found.startswith(f"Got: {100 * got:.1f} % (95 % interval ")
    assert found.endswith(f" on 500 images kept apart, by PyTorch: {verdict}")
    why = "not met, as a faster plan does not hold the outcome"
    assert wish == f"Wished: speed-up of 1.50; predicted 1.25 by the formula: {why}"
    assert judged.kept is (verdict == "kept")


def test_a_measured_speed_counts_more_than_a_predicted_one() -> None:
    assert Wish(1.5, 1.4, "table").told(Figure(1.6, (1.55, 1.65))) == (
        "Wished: speed-up of 1.50; measured 1.60 (95 % interval 1.55 to 1.65), predicted 1.40 by the table: met"
    )


def test_it_is_read_back_from_a_budget_s_statistics() -> None:
    judged = replace(MADE, judged=Judged(20, Figure(0.9), False, "the graph"))
    for made in (MADE, judged):
        assert outcome_of({"outcome": made.to_json()}) == made
    assert outcome_of({}) is None
    assert judged.lines()[1].endswith("on 20 images, the calibration images themselves, by the graph: missed")
    assert MADE.lines()[1] == "Got: not judged, as there are no other images"
    with pytest.raises(InputError, match="statistics.outcome is of 'speed', but outcomes are of agreement"):
        outcome_of({"outcome": MADE.to_json() | {"measure": "speed"}})
