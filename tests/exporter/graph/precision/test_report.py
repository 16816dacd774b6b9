"""What an export says of its precision, as a type; files of vitrim 0.1.0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fuzz import fuzz, held, json_file, mangled
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.graph.precision.report import PrecisionReport

OLD = Path(__file__).parents[3] / "data" / "0.1.0"


@pytest.mark.parametrize(
    ("name", "asked", "timed"), [("fp16", "fp16", True), ("int8", "int8", True), ("jetpack", "int8", False)]
)
def test_files_of_0_1_0_load(name: str, asked: str, timed: bool) -> None:
    data = json.loads((OLD / f"precision-{name}.json").read_text())
    found = PrecisionReport.from_json(data, name)
    assert json.loads(json.dumps(found.to_json())) == data
    assert (found.asked, found.name) == (asked, asked)
    assert (found.speedup_over_fp32 is not None) is (found.interval is not None) is timed
    assert (found.not_timed is None) is timed
    assert set(found.pinned) == {node for nodes in found.float32_nodes.values() for node in nodes}
    assert list(found.pinned) == sorted(found.pinned)


def test_a_precision_that_there_is_not_is_refused() -> None:
    data = json.loads((OLD / "precision-int8.json").read_text())
    with pytest.raises(InputError, match=r'^p\.json: name is "fp4", which this vitrim does not know \(it knows'):
        PrecisionReport.from_json(data | {"name": "fp4"}, "p.json")


@fuzz(150)
@given(
    data=st.sampled_from(["fp16", "int8", "jetpack"]).flatmap(
        lambda name: mangled(json.loads((OLD / f"precision-{name}.json").read_text()))
    ),
    tail=st.just(b"") | st.binary(max_size=4),
)
def test_any_json_is_a_report_of_precision_or_one_line(data: Any, tail: bytes, tmp_path: Path) -> None:
    found = held(PrecisionReport.read, json_file(tmp_path / "precision.json", data, tail), "precision report")
    if found is not None:
        assert PrecisionReport.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)), "again") == found
        assert set(found.pinned) == {node for nodes in found.float32_nodes.values() for node in nodes}
