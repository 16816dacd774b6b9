import json
from pathlib import Path
from typing import Any

import pytest
from fuzz import fuzz, held, json_file, mangled
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.widths import format_widths, parse_widths, read_widths, write_widths

ROW = {"block": "blocks.0", "heads_before": 3, "heads": [0, 2], "neurons_before": 4, "neurons": [1, 2, 3]}


def test_a_plan_is_written_a_line_a_block_and_read_back(tmp_path):
    plan = parse_widths({"model": "m", "blocks": [ROW, ROW | {"block": "blocks.1", "heads": [1]}]})
    assert plan.heads == (2, 1)
    assert plan.neurons == (3, 3)
    write_widths(plan, tmp_path / "w.json")
    assert read_widths(tmp_path / "w.json") == plan
    lines = [line for line in format_widths(plan).splitlines() if '"block"' in line]
    assert len(lines) == 2
    assert json.loads(format_widths(plan))["format"] == "vitrim-widths/1"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heads": []}, "heads must be different indices from 0 to 2, ascending, at least one"),
        ({"heads_before": 0}, "heads must be [], as heads_before is 0: none can leave"),
        ({"neurons": []}, "blocks[0].neurons"),
        ({"heads": [2, 0]}, "heads must be different indices from 0 to 2, ascending"),
        ({"heads": [0, 3]}, "heads must be different indices from 0 to 2, ascending"),
        ({"neurons": [1, 1]}, "neurons must be different indices from 0 to 3, ascending"),
        ({"neurons": [-1]}, "neurons must be different"),
        ({"extra": 1}, "blocks[0].extra is not a known key"),
    ],
)
def test_bad_rows_are_named(change, said):
    with pytest.raises(InputError) as error:
        parse_widths({"blocks": [ROW | change]}, "w.json")
    assert said in str(error.value)
    assert str(error.value).startswith("w.json")


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*none.json: no such file"):
        read_widths(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        read_widths(tmp_path / "bad.json")
    with pytest.raises(InputError, match="must be a JSON object"):
        parse_widths([1])


def use_widths(path: Path) -> None:
    widths = read_widths(path)
    assert parse_widths(json.loads(format_widths(widths), parse_constant=pytest.fail)) == widths
    assert len(widths.heads) == len(widths.neurons) >= 1


@fuzz(150)
@given(
    data=mangled({"format": "vitrim-widths/1", "blocks": [ROW, ROW], "costs": {"gmacs": [1.5, 1.0]}, "statistics": {}}),
    tail=st.just(b"") | st.binary(max_size=4),
)
def test_any_json_is_a_plan_of_widths_or_one_line(data: Any, tail: bytes, tmp_path: Path) -> None:
    held(use_widths, json_file(tmp_path / "widths.json", data, tail))
