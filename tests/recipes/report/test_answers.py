from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import report_bundles

from vitrim.exporter.core.errors import EnvironmentLackError
from vitrim.recipes.report import answers
from vitrim.recipes.report.answers import Answer, Answers, answers_of, chosen
from vitrim.recipes.report.sources import read_bundle


def test_the_dense_graph_answers_beside_the_pruned_one(tmp_path: Path) -> None:
    found = answers_of(read_bundle(report_bundles.make(tmp_path / "out")))
    held = report_bundles.golden()
    dense = held["image"].mean(axis=(1, 2)) / 10
    assert (found.lacking, found.changed) == (None, 1)
    assert [one.dense for one in found.each] == dense.argmax(axis=1).tolist()
    assert [one.changed for one in found.each] == [True, *[False] * 5]
    shares = np.exp(dense[0]) / np.exp(dense[0]).sum()
    assert found.each[0].dense_probability == pytest.approx(shares.max(), abs=1e-6)
    assert found.each[1].kl == pytest.approx(0, abs=1e-6)
    assert (found.each[0].kl or 0) > 1


def test_without_a_runtime_the_reason_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lack(*_: object) -> None:
        raise EnvironmentLackError("onnxruntime is not installed")

    monkeypatch.setattr(answers, "runner_for", lack)
    found = answers_of(read_bundle(report_bundles.make(tmp_path / "out")))
    assert found.lacking == "the dense graph was not run: onnxruntime is not installed"
    assert {one.dense for one in found.each} == {None}
    assert [one.image for one in chosen(found, 2)] == [0, 1]


def each(*changed: tuple[bool, float]) -> Answers:
    rows = (Answer(at, 0, 0.5, 0, 0.5, *pair) for at, pair in enumerate(changed))
    return Answers(tuple(rows), None)


def test_changed_answers_come_first_and_take_half_of_the_places() -> None:
    found = each((True, 0.1), (True, 0.9), (True, 0.5), (False, 0.0), (False, 0.2), (False, 0.3))
    assert [one.image for one in chosen(found, 4)] == [1, 2, 4, 5]
    assert [one.image for one in chosen(found, 3)] == [1, 2, 4]
    assert len(chosen(found, 100)) == 6


def test_changed_answers_fill_up_where_nothing_else_is() -> None:
    found = each((True, 0.1), (True, 0.9), (True, 0.5), (False, 0.0))
    assert [one.image for one in chosen(found, 4)] == [1, 2, 0, 3]
