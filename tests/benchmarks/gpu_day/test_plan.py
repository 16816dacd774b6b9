"""Which steps are planned, in which order, and what they need."""

from __future__ import annotations

from collections import Counter

import pytest
from gpu_day.plan import DENSE, Step, Wanted, chains, in_order, plan

WANTED = Wanted(("big", "small"), ("evit", "frugal"), ("fp16", "int8"), (1, 64), ("trt-rtx",), ratio=0.5, rounds=40)


def test_every_combination_has_its_steps_once() -> None:
    steps = plan(WANTED)
    assert len({step.name for step in steps}) == len(steps)
    bundles = 2 * 2 * 2 * 3
    assert Counter(step.kind for step in steps) == {
        "export": bundles,
        "build": bundles,
        "parity": bundles,
        "time": 2 * bundles,
        "energy": bundles,
        "torch": 2 * 2 * 2,  # of a model and a batch, eager and compiled
    }
    assert {step.variant for step in steps if step.kind == "time"} == {"plain", "cuda_graph"}
    assert {step.precision for step in steps if step.kind == "torch"} == {"fp16"}


def test_what_a_step_needs_is_planned_before_it() -> None:
    seen: set[Step] = set()
    for step in plan(WANTED):
        assert set(step.needs) <= seen, step.name
        seen.add(step)
    timing = next(step for step in seen if (step.kind, step.method) == ("time", "frugal"))
    assert [(one.kind, one.method, one.ratio) for one in timing.needs] == [
        ("build", DENSE, 1.0),
        ("build", "frugal", 0.5),
    ]


def test_what_matters_most_comes_first() -> None:
    steps = plan(WANTED)
    timings = [step for step in steps if step.kind == "time"]
    assert (timings[0].model, timings[0].precision, timings[0].batch, timings[0].method) == ("big", "fp16", 1, DENSE)
    cases = list(dict.fromkeys((step.precision, step.model, step.batch) for step in timings))
    assert cases[:4] == [("fp16", "big", 1), ("fp16", "big", 64), ("fp16", "small", 1), ("fp16", "small", 64)]
    kinds = [step.kind for step in steps]
    assert kinds.index("energy") > max(at for at, kind in enumerate(kinds) if kind == "time")


def test_more_rounds_do_again_what_is_timed_and_nothing_else() -> None:
    quick, slow = (
        plan(Wanted(("m",), ("evit",), ("fp16",), (1,), ("trt-rtx",), rounds=10)),
        plan(Wanted(("m",), ("evit",), ("fp16",), (1,), ("trt-rtx",), rounds=99)),
    )
    assert {new.kind for old, new in zip(quick, slow, strict=True) if old != new} == {"time", "torch"}


def test_another_share_of_gmacs_leaves_what_is_dense() -> None:
    def steps(ratio: float) -> list[Step]:
        return plan(Wanted(("m",), ("evit",), ("fp16",), (1,), ("trt-rtx",), ratio))

    changed = {new.method for old, new in zip(steps(0.5), steps(0.7), strict=True) if old != new}
    assert changed == {"evit"}


def test_what_failed_comes_last_with_what_needs_it() -> None:
    steps = plan(WANTED)
    export = next(step for step in steps if step.kind == "export" and step.method == "evit")
    ordered = in_order(steps, [export.name])
    late = ordered[ordered.index(export) :]
    assert {step.kind for step in late} == {"export", "build", "parity", "time", "energy"}
    assert {step.case for step in late} == {export.case}
    assert len(late) == 6
    assert ordered[: -len(late)] == [step for step in steps if step not in late]


def test_steps_of_one_bundle_go_in_turn() -> None:
    steps = [step for step in plan(WANTED) if step.kind in ("export", "build")]
    for chain in chains(steps):
        assert [step.kind for step in chain] == ["export", "build"]
        assert len({step.case for step in chain}) == 1


@pytest.mark.parametrize("checkpoint", [None, "/somewhere/weights.safetensors"])
def test_a_step_is_read_as_it_was_written(checkpoint: str | None) -> None:
    step = Step("time", "m", 8, "trt-rtx", "evit", "int8", 0.5, "plain", checkpoint, 20)
    assert Step.from_json(step.to_json(), "step") == step
    assert step.name == "time-m-evit-int8-b8-trt-rtx-plain"
