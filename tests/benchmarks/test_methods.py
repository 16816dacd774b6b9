"""The table of all methods: order, paired differences, the rival's row, costs, and columns that were not measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from measure import Row
from methods import ROWS, Result, main, plot, table

from vitrim.exporter.pruning.budget import parse_budget
from vitrim.exporter.pruning.methods import METHODS
from vitrim.exporter.pruning.methods.options import parse_parameters

CLASSES = 5
DENSE = np.eye(CLASSES)[np.arange(100) % CLASSES] * 4.0


def budget(scoring: float) -> Any:
    rows = [{"block": 0, "before": 17, "after": 17}, {"block": 1, "before": 17, "after": 9}]
    costs = {"dense": 1.2, "pruned": 0.8, "scoring": scoring}
    return parse_budget({"method": "evit", "prefix_tokens": 1, "blocks": rows, "gmacs": costs})


def speed(median: float) -> dict[str, Any]:
    return {"speedup": {"median": median, "interval": [median - 0.01, median + 0.02]}, "overhead": {"median": 1.1}} | {
        "nodes": 40
    }


def result(row: Row, wrong: int, timed: Any = None, scoring: float = 0.0) -> Result:
    """A row that answers otherwise on the first `wrong` photos."""
    logits = DENSE.copy()
    logits[:wrong] = np.roll(logits[:wrong], 1, axis=1)
    return Result(row, budget(scoring), logits, timed or {})


def cells(lines: list[str]) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def test_rows_stand_by_agreement_with_paired_differences() -> None:
    timed = {batch: speed(1.5 + batch) for batch in (1, 8)}
    results = [
        result(Row("first", "evit"), 6, timed),
        result(Row("pools only", "ppt", (("policy", "pool"),)), 1, timed),
        result(Row("PPT", "ppt"), 10, timed),
        result(Row("PPT too", "ppt", stages=4), 8, timed, scoring=0.0123),
    ]
    labels = DENSE.argmax(1)
    labels[50:] += 1  # half of what the dense model says is right
    lines = list(table("a model", DENSE, labels, results))
    assert lines[0] == "## a model, 100 images, dense top-1 50.0 %"
    assert lines[2].startswith("PPT is the row `PPT too`, the best of it.")
    heads, _, *rows = cells(lines)
    assert [row[0] for row in rows] == ["pools only", "first", "PPT too", "PPT"]
    assert all(len(row) == len(heads) for row in rows)
    first, rival = (dict(zip(heads, row, strict=True)) for row in rows[1:3])
    assert first["GMACs"] == "0.8000"
    assert (rival["GMACs"], rival["of which scoring, M"]) == ("0.8123", "12.3")
    assert first["tokens"] == "1:9"
    assert first["agreement % (95 %)"].startswith("94.0 (")
    assert first["less than the best, points"].startswith("5.0 (")
    assert first["above PPT, points"].startswith("2.0 (0.0 to ")
    assert rival["above PPT, points"] == "0.0 (0.0 to 0.0)"
    assert first["top-1 %"] == "44.0"
    assert first["above dense, points"].startswith("-6.0 (")
    assert [first[f"speed-up, batch {batch}"] for batch in (1, 8)] == ["2.500", "9.500"]
    assert "2.490 to 2.520" in rows[1]
    assert first["nodes"] == "40"


def test_columns_stay_empty_where_nothing_was_measured() -> None:
    lines = list(table("a model", DENSE, None, [result(Row("first", "evit"), 6)]))
    heads, _, row = cells(lines)
    found = dict(zip(heads, row, strict=True))
    assert lines[0] == "## a model, 100 images"
    assert (found["above PPT, points"], found["top-1 %"], found["nodes"]) == ("", "", "")
    assert not any("batch" in head for head in heads)


def test_all_rows_can_be_planned() -> None:
    assert len({row.title for row in ROWS}) == len(ROWS)
    for row in ROWS:
        parse_parameters(METHODS[row.method], dict(row.parameters))


@pytest.mark.slow
def test_the_plot_has_a_panel_for_every_model_and_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = {batch: speed(1.5) for batch in (1, 8)}
    results = [result(Row("first", "evit"), 6, timed), result(Row("PPT", "ppt"), 10, timed)]
    drawn: list[Any] = []
    monkeypatch.setattr("methods.draw", lambda panel, points: drawn.append(points))
    plot(tmp_path / "plot.png", {("model", batch): (DENSE, results) for batch in (1, 8)})
    assert drawn == [[(1.5, 94.0, 1), (1.5, 90.0, 2)]] * 2
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_a_speed_up_for_every_batch_is_asked_for() -> None:
    done = CliRunner().invoke(main, ["--batch", "1", "--batch", "8", "--speedup", "1.4"])
    assert done.exit_code == 2
    assert "--speedup is given 1 times, --batch 2 times" in done.output
