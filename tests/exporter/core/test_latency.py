"""Latency tables: what they hold, and what they are refused for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from latency_tables import made_table

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.latency import StageCost, read_table


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = made_table()
    table.write(tmp_path / "t.json")
    assert read_table(str(tmp_path / "t.json")) == table
    assert table.dense == 9.5  # of the fused form, which is the faster one
    assert StageCost(0.1, 0.01).of(20) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"batch": 8}, "t.json is a table of batch 1, but here it is 8; make one that fits: do this"),
        ({"device": "another", "threads": 1}, "of device a processor, but here it is another"),
        ({"runtime": "onnxruntime 2"}, "of runtime onnxruntime 1, but here it is onnxruntime 2"),
        ({"threads": 2, "model": "b"}, "of model small, but here it is b"),  # in the order of the class
        ({"precision": "int8"}, "of precision fp32, but here it is int8"),
    ],
)
def test_a_table_of_something_else_is_refused_by_name(wanted: dict[str, Any], said: str) -> None:
    table = made_table()
    table.require("t.json", "do this", batch=1, target="ort-cpu")
    with pytest.raises(InputError, match=said):
        table.require("t.json", "do this", **wanted)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"counts": [4, 2]}, "counts that do not ascend"),
        ({"counts": [4]}, "fewer than two"),
        ({"mlp": [1.0]}, "not one time above 0 for each of its counts"),
        ({"mlp": [0.0, 1.0]}, "not one time above 0"),
        ({"forms": {}}, "has no forms"),
        ({"format": "vitrim-latency/9"}, "which this vitrim does not know"),
        ({"clock": "sundial"}, "clock is"),
    ],
)
def test_what_is_no_table_is_told_in_a_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    data = made_table(counts=(1, 17)).to_json() | change
    (tmp_path / "t.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=said):
        read_table(str(tmp_path / "t.json"))
