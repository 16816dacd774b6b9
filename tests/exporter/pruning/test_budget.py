"""Budgets: what is legal, what is refused with which reason, and that a file survives a round trip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fuzz import anything, fuzz, held, json_file, mangled
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.budget import check_legal, format_budget, parse_budget, read_budget, write_budget


def plain(stages: dict[int, int] | None = None, depth: int = 4, tokens: int = 17) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for block in range(depth):
        after = (stages or {}).get(block, tokens)
        rows.append({"block": block, "before": tokens, "after": after})
        tokens = after
    return {"format": "vitrim-budget/1", "method": "zero_tprune", "prefix_tokens": 1, "blocks": rows}


def check(data: dict[str, Any]) -> None:
    check_legal(parse_budget(data, "b.json"), depth=4, tokens=17, prefix_tokens=1, where="b.json")


def test_plan_follows_place() -> None:
    data = plain({1: 11, 2: 6})
    assert parse_budget(data).plan() == [(17, 17), (17, 11), (11, 6), (6, 6)]
    data["parameters"] = {"place": "before_queries"}
    assert parse_budget(data).plan() == [(17, 17), (17, 11), (11, 6), (6, 6)]
    data["parameters"] = {"place": "after_block"}
    assert parse_budget(data).plan() == [(17, 17), (17, 17), (11, 11), (6, 6)]
    assert parse_budget(data).tokens == (17, 11, 6, 6)


def edit(data: dict[str, Any], at: int, **values: Any) -> dict[str, Any]:
    data["blocks"][at] |= values
    return data


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (edit(plain(), 3, after=18), r"blocks\[3\]\.after is 18, more than its before 17"),
        (
            edit(plain({1: 9}), 2, before=17, after=17),
            r"blocks\[2\]\.before is 17, but blocks\[1\]\.after is 9",
        ),
        (edit(plain(), 3, after=1), r"would drop prefix tokens or leave no patch"),
        (
            edit(plain(), 0, before=18, after=18),
            r"blocks\[0\]\.before is 18, but the model's token count is 17",
        ),
        (plain() | {"prefix_tokens": 0}, r"prefix_tokens is 0, but the model has 1"),
        (plain(depth=3), r"has 3 rows under blocks, but the model has 4"),
        (edit(plain(), 2, block=1), r"blocks\[2\]\.block is 1"),
        (edit(plain(), 2, similar=3), r"blocks\[2\] removes nothing, so \['similar'\]"),
        (
            plain() | {"parameters": {"place": "outside"}},
            r"parameters\.place is 'outside'; allowed are 'before_queries', 'before_mlp', 'after_block'",
        ),
        (edit(plain(), 2, after="9"), r"blocks\[2\]\.after is '9'"),
        (edit(plain(), 2, after=9.0), r"blocks\[2\]\.after is 9\.0"),
        (edit(plain(), 2, after=True), r"blocks\[2\]\.after is True"),
        (plain() | {"colour": 1}, r"colour is not a known key"),
        (plain() | {"format": "vitrim-budget/9"}, r"format is 'vitrim-budget/9'"),
    ],
)
def test_illegal_budgets_are_refused_with_the_reason(data: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check(data)


@given(st.lists(st.integers(2, 17), min_size=4, max_size=4))
def test_exactly_the_non_growing_plans_are_legal(after: list[int]) -> None:
    tokens, data = 17, plain()
    rows = []
    for block, count in enumerate(after):
        rows.append({"block": block, "before": tokens, "after": count})
        tokens = count
    data["blocks"] = rows
    if sorted(after, reverse=True) == after:
        check(data)
    else:
        with pytest.raises(InputError, match="cannot add tokens"):
            check(data)


def test_file_round_trip_and_one_line_a_block(tmp_path: Path) -> None:
    budget = parse_budget(edit(plain({1: 9}), 1, similar=2, iterations=30))
    write_budget(budget, tmp_path / "budget.json")
    assert read_budget(tmp_path / "budget.json") == budget
    lines = format_budget(budget).splitlines()
    assert '    {"block": 1, "before": 17, "after": 9, "similar": 2, "iterations": 30},' in lines
    assert json.loads(format_budget(budget))["blocks"][1]["similar"] == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "not valid JSON at line 1"),
        (b"[]", "must be a JSON object"),
        (b"\xff\xfe\x00", "not a text file"),
        (b"[" * 100_000, "not valid JSON"),
        (b"{}", "is missing"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "b.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_budget(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_budget(tmp_path / "none.json")


PLAN = {
    "format": "vitrim-budget/1", "model": "vit", "method": "zero_tprune", "parameters": {"place": "before_mlp"},
    "prefix_tokens": 1, "gmacs": {"dense": 1.5, "pruned": 1.0}, "statistics": {"mass": [0.5, 0.25]}, "provenance": {},
    "blocks": [{"block": 0, "before": 17, "after": 17}, {"block": 1, "before": 17, "after": 9, "similar": 2}],
}  # fmt: skip


def use_budget(path: Path) -> None:
    budget = read_budget(path)
    assert parse_budget(json.loads(format_budget(budget), parse_constant=pytest.fail)) == budget
    assert len(budget.plan()) == len(budget.tokens) >= len(budget.stages)
    check_legal(budget, depth=2, tokens=17, prefix_tokens=1)


@fuzz(150)
@given(data=mangled(PLAN) | anything, tail=st.just(b"") | st.binary(max_size=4))
def test_any_json_is_a_budget_or_one_line(data: Any, tail: bytes, tmp_path: Path) -> None:
    held(use_budget, json_file(tmp_path / "budget.json", data, tail))
