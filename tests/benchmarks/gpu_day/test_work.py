"""Steps by real processes: resumed, kept apart, held to the time that there is."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gpu_day.keep import Outcome
from gpu_day.plan import Step, Wanted, plan
from gpu_day.results import Engines, Graphs
from gpu_day.work import NOT_PREPARED, Day, at_once, in_turn

STEPS = [
    step
    for step in plan(Wanted(("m",), ("evit", "tome"), ("fp16",), (1,), ("trt-rtx",)))
    if step.kind in ("export", "build")
]
FACTS = {"gpu": "A", "driver": "1", "rtx": "1.7", "torch": "2"}
NOTHING: dict[str, Any] = {"rtx": None, "tensorrt": None, "torch": None}
GRAPHS = Graphs({"pruned": "a"}, 2.9, 1.0).to_json()
ENGINES = Engines({"pruned": "b"}, {"pruned": 10}, 66, 6, "all run in fp16", "1.7").to_json()


def write(text: str) -> str:
    return f"open(sys.argv[-1], 'w').write({text!r})"


def good(step: Step) -> str:
    """Code of a step that goes well."""
    return write(json.dumps(GRAPHS if step.kind == "export" else ENGINES))


def day(
    work: Path,
    code: Callable[[Step], str] = good,
    machine: dict[str, Any] | None = None,
    **more: Any,
) -> Day:
    """A day whose steps are Python code; `said` keeps its lines."""
    found = machine or {"facts": FACTS, "runs": NOTHING, "builds": NOTHING}
    said: list[str] = []
    made = Day(
        work,
        found,
        time.monotonic() + more.pop("seconds", 600),
        lambda step: [sys.executable, "-c", f"import os, sys\n{code(step)}"],
        say=said.append,
        **more,
    )
    made.said = said  # type: ignore[attr-defined]
    return made


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    first = day(tmp_path)
    in_turn(first, STEPS)
    assert [first.is_done(step) for step in STEPS] == [True] * 6
    assert len(first.said) == 6
    again = day(tmp_path, lambda step: "os.abort()")
    in_turn(again, STEPS)
    assert again.said == []
    assert [again.is_done(step) for step in STEPS] == [True] * 6


def test_what_depends_on_another_machine_or_file_is_done_again(tmp_path: Path) -> None:
    in_turn(day(tmp_path), STEPS)
    other = day(tmp_path, machine={"facts": {**FACTS, "rtx": "1.8"}, "runs": NOTHING, "builds": NOTHING})
    assert [step.kind for step in STEPS if not other.is_done(step)] == ["build"] * 3
    carried = day(tmp_path, machine={"facts": {**FACTS, "gpu": "B"}, "runs": NOTHING, "builds": NOTHING})
    assert all(carried.is_done(step) for step in STEPS)  # engines of TensorRT for RTX go anywhere
    export = STEPS[0]
    kept = carried.keep.of(export)
    assert kept is not None
    carried.keep.put(Outcome(export, kept.key, 1.0, GRAPHS | {"sha256": {"pruned": "another"}}))
    assert [carried.is_done(step) for step in STEPS[:2]] == [True, False]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("os.abort()", "it was ended by SIGABRT"),
        (write("nonsense"), "its result cannot be read"),
        (write(json.dumps(GRAPHS | {"sha256": {}})), "its result is none: export says nothing of pruned"),
        (write('{"failed": "no room"}'), "no room"),
    ],
)
def test_one_step_s_failure_leaves_the_others_alone(code: str, said: str, tmp_path: Path) -> None:
    bad = next(step for step in STEPS if (step.kind, step.method) == ("export", "evit"))
    one = day(tmp_path, lambda step: code if step == bad else good(step))
    in_turn(one, STEPS)
    assert [step.case for step in STEPS if not one.is_done(step)] == [bad.case] * 2
    line, other = (text for text in one.said if bad.case in text)
    assert line.startswith(f"{bad.name}: {said}")
    assert other.startswith(f"build-{bad.case}: {bad.name} is needed: {said}")
    again = day(tmp_path)
    in_turn(again, STEPS)  # what failed is tried again by the next call
    assert all(again.is_done(step) for step in STEPS)


def test_without_a_gpu_each_step_says_so_and_nothing_is_started(tmp_path: Path) -> None:
    lacks = {"facts": FACTS, "runs": {"rtx": "no GPU", "torch": "no GPU either"}, "builds": NOTHING}
    steps = plan(Wanted(("m",), ("evit",), ("fp16",), (1,), ("trt-rtx",)))
    gpu = [step for step in steps if step.kind not in ("export", "build")]
    one = day(tmp_path, lambda step: "os.abort()", lacks)
    in_turn(one, gpu)
    assert [text.rpartition(": ")[2] for text in one.said] == [
        "no GPU either" if s.kind == "torch" else "no GPU" for s in gpu
    ]
    assert not (tmp_path / "logs").exists()


def test_without_a_meter_only_energy_is_left_out(tmp_path: Path) -> None:
    machine = {"facts": FACTS, "runs": {**NOTHING, "meter": "no meter"}, "builds": NOTHING}
    steps = plan(Wanted(("m",), (), ("fp16",), (1,), ("trt-rtx",)))
    one = day(tmp_path, machine=machine)
    assert {step.kind for step in steps if one.lacks(step) == "no meter"} == {"energy"}
    assert one.lacks(next(step for step in steps if step.kind == "torch")) is None


def test_what_was_not_prepared_is_said(tmp_path: Path) -> None:
    one = day(tmp_path, exports=False)
    in_turn(one, STEPS[:2])
    assert one.said == [
        f"{STEPS[0].name}: {NOT_PREPARED}",
        f"{STEPS[1].name}: {STEPS[0].name} is needed: {NOT_PREPARED}",
    ]
    in_turn(day(tmp_path), STEPS[:2])
    carried = day(tmp_path, exports=False)
    kept = carried.keep.of(STEPS[0])
    assert kept is not None
    carried.keep.put(Outcome(STEPS[0], "of other code", 1.0, kept.result))
    assert carried.is_done(STEPS[0])  # it is used as it was brought


def test_nothing_is_begun_that_would_not_end_in_time(tmp_path: Path) -> None:
    one = day(tmp_path, seconds=30)
    for method, seconds in (("a", 200.0), ("b", 100.0)):
        step = Step("export", "m", 1, "trt-rtx", method)
        one.keep.put(Outcome(step, "k", seconds, GRAPHS))
    in_turn(one, STEPS[:1])
    assert one.said[0].startswith(f"{STEPS[0].name}: not begun: ")
    assert "it takes about 188 s" in one.said[0]
    assert one.keep.of(STEPS[0]) is None


def test_bundles_are_prepared_at_once_each_in_turn(tmp_path: Path) -> None:
    one = day(tmp_path, lambda step: f"import time; time.sleep(0.3)\n{good(step)}")
    at_once(one, STEPS, 3)
    assert all(one.is_done(step) for step in STEPS)
    began = {text.partition(":")[0]: at for at, text in enumerate(one.said)}
    for build in STEPS[1::2]:
        assert began[build.but("export").name] < began[build.name]


def test_whoever_interrupts_ends_what_runs(tmp_path: Path) -> None:
    def say(text: str) -> None:
        raise KeyboardInterrupt

    one = day(tmp_path, lambda step: good(step) if step == STEPS[0] else "import time; time.sleep(600)")
    one.say = say
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        at_once(one, STEPS, 2)
    assert time.monotonic() - began < 30
