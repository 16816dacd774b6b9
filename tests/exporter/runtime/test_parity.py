"""Parity ladders as a type: what follows from the rungs, what goes to JSON, and files of vitrim 0.1.0."""

from __future__ import annotations

import io
import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from fuzz import anything, fuzz, held, json_file, mangled
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.records import finite
from vitrim.exporter.runtime.lines import parity_lines
from vitrim.exporter.runtime.parity import Errors, Limits, Parity, Rung, StageAgreement
from vitrim.terminal.screens.parity import print_parity

OLD = Path(__file__).parents[2] / "data" / "0.1.0"
GOOD = Rung("good", 4, top1=1.0, smallest_atol=1e-6, smallest_tie=0.0)
BAD = replace(GOOD, name="bad", passed=False, first_offender="logits", reason="largest error", smallest_atol=3e-3)

shares = st.floats(0, 1)
stages = st.builds(
    StageAgreement, st.sampled_from(["kept_1", "merged_2"]), shares, shares, st.integers(0, 9), st.integers(0, 9),
    st.none() | shares,
)  # fmt: skip
errors = st.none() | st.builds(Errors, st.integers(1, 9), shares, shares, shares, shares)
rungs = st.builds(
    Rung,
    name=st.text(),
    images=st.integers(1, 9),
    stages=st.lists(stages, max_size=2).map(tuple),
    equal=errors,
    replayed=errors,
    end=errors,
    passed=st.booleans(),
    first_offender=st.none() | st.text(),
    smallest_atol=st.none() | shares,
    smallest_tie=st.none() | shares,
    strict=st.booleans(),
)
parities = st.builds(
    Parity,
    shares,
    shares,
    st.lists(rungs, max_size=4).map(tuple),
    st.none() | st.builds(Limits, shares, shares),
    st.none() | st.text(),
)


@given(parities)
def test_it_comes_back_from_json_equal(parity: Parity) -> None:
    text = json.dumps(parity.to_json())
    assert Parity.from_json(json.loads(text), "parity.json") == parity
    assert json.loads(text)["passed"] == parity.passed == all(rung.passed for rung in parity.rungs)


def test_what_follows_from_the_rungs() -> None:
    parity = Parity(1e-4, 1e-5, (GOOD, BAD, replace(BAD, name="worse")))
    assert (parity.passed, parity.first_offender, parity.smallest_atol) == (False, "bad: logits", 3e-3)
    assert parity.failure == (
        "parity failed at 'bad', first at logits: largest error; the smallest atol that would pass the numbers is 0.003"
    )
    hopeless = replace(BAD, smallest_atol=None)
    assert Parity(1e-4, 1e-5, (GOOD, hopeless)).smallest_atol is None
    assert Parity(1e-4, 1e-5, (GOOD, replace(hopeless, strict=False))).smallest_atol == 1e-6
    good = Parity(1e-4, 1e-5, (GOOD,))
    assert (good.passed, good.failure, good.first_offender) == (True, "", None)
    assert Parity(1e-4, 1e-5, ()).passed  # nothing was held, and nothing failed


def test_a_ladder_goes_on_from_an_earlier_one() -> None:
    first = Parity(1e-2, 0, (GOOD,))
    second = replace(first, rungs=(*first.rungs, replace(GOOD, name="engine", strict=False, smallest_atol=None)))
    assert [rung.name for rung in second.rungs] == ["good", "engine"]
    assert (second.passed, second.smallest_atol) == (True, first.smallest_atol)
    third = replace(second, rungs=(*second.rungs, replace(BAD, name="engine")))
    assert (third.passed, third.first_offender) == (False, "engine: logits")


def test_notes_say_what_was_not_checked() -> None:
    parity = Parity(1, 1, (GOOD,), cpu_only="only the CPU ran it", engine_not_checked="no GPU")
    assert parity.notes == ("only the CPU ran it", "the engine was not checked: no GPU")
    assert Parity(1, 1, (GOOD,)).notes == ()


def test_it_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        GOOD.passed = False  # type: ignore[misc]


@pytest.mark.parametrize("name", ["parity", "parity-int8", "parity-engine"])
def test_files_of_0_1_0_load(name: str) -> None:
    data = json.loads((OLD / f"{name}.json").read_text())
    found = Parity.from_json(data, name)
    again = json.loads(json.dumps(found.to_json()))
    full = [rung for rung in data["rungs"] if "strict" in rung]
    assert [rung for rung in again["rungs"] if rung in full] == full
    assert {key: again[key] for key in data if key != "rungs"} == {key: data[key] for key in data if key != "rungs"}
    assert (found.close is None) is (name == "parity")
    assert (found.engine is None) is (name != "parity-engine")
    if found.engine is not None and found.engine.layers is not None:
        assert (found.engine.precision, found.engine.layers.precisions) == ("fp16", {"fp16": 1})


def test_a_file_that_was_edited_wrongly_is_refused() -> None:
    data = json.loads((OLD / "parity.json").read_text())
    data["rungs"][1]["stages"] = [{"output": "kept_1", "same_images": "all"}]
    with pytest.raises(InputError, match=r"parity\.json: rungs\[1\]\.stages\[0\]\.same_tokens is missing; it"):
        Parity.from_json(data, "parity.json")


LADDERS = [json.loads((OLD / f"{name}.json").read_text()) for name in ("parity", "parity-int8", "parity-engine")]


def use_ladder(path: Path) -> None:
    parity = Parity.read(path, "parity report")
    json.dumps(finite(parity.to_json()), allow_nan=False)
    assert parity.passed is (parity.failure == "")
    assert len(parity_lines(parity)) >= len(parity.rungs)
    print_parity(parity, Console(file=io.StringIO()))
    for rung in parity.rungs:
        assert rung.describe_error()


@fuzz(150)
@given(data=st.sampled_from(LADDERS).flatmap(mangled) | anything, tail=st.just(b"") | st.binary(max_size=4))
def test_any_json_is_a_ladder_or_one_line(data: Any, tail: bytes, tmp_path: Path) -> None:
    held(use_ladder, json_file(tmp_path / "parity.json", data, tail))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"atol": -1}, "atol is -1.0; give a number from 0 to 1e+06"),
        ({"tie": 2}, "tie is 2.0; give a number from 0 to 1"),
        ({"close": {"cosine": 7, "agreement": 1}}, "close has the cosine 7 and the agreement 1; both go up to 1"),
        ({"rungs": [{"name": "a", "images": 1, "end": {"images": 0}}]}, "rungs[0].end.max_abs is missing"),
    ],
)
def test_a_ladder_that_was_edited_names_what_is_wrong_in_it(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = json_file(tmp_path / "parity.json", LADDERS[0] | change)
    with pytest.raises(InputError) as caught:
        Parity.read(path, "parity report")
    assert said in str(caught.value)
