from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import report_bundles

from vitrim.exporter.core.fidelity import Fidelity
from vitrim.exporter.pruning.budget import parse_budget
from vitrim.exporter.runtime.bench.blocks import BlockTimes, ByBlock
from vitrim.exporter.runtime.bench.compare import Row
from vitrim.exporter.runtime.bench.report import Bench, report
from vitrim.recipes.evaluation.result import Evaluation
from vitrim.recipes.report import charts


def bench(**more: np.ndarray) -> Bench:
    return report(report_bundles.samples() | more, 1, {"runtime": "onnxruntime-cpu"})


def widths(drawn: str, kind: str) -> list[float]:
    return [float(one) for one in re.findall(rf'width="([\d.]+)" height="12" class="{kind}"', drawn)]


def test_bars_are_as_long_as_there_are_tokens() -> None:
    drawn = charts.blocks(parse_budget(report_bundles.budget()))
    assert widths(drawn, "bar") == pytest.approx([250, 250 * 13 / 17], abs=0.01)
    assert widths(drawn, "stage") == pytest.approx([250 * 13 / 17, 250 * 9 / 17], abs=0.01)
    assert "17 enter the first, 9 leave the last; 2 stages remove some" in drawn


def test_work_by_block_stands_before_the_dense_one() -> None:
    drawn = charts.costs(report_bundles.budget()["statistics"]["gmacs_by_block"])
    assert widths(drawn, "rail") == [220] * 4
    assert widths(drawn, "bar") == [220, 192.5, 165, 137.5]
    assert widths(drawn, "stage") == [0, 13.75, 0, 13.75]
    assert "3.500 + 0.250" in drawn


def test_latencies_are_told_and_drawn() -> None:
    found = bench()
    drawn = charts.latencies(found)
    boxes = {
        kind: re.search(rf'<rect x="([\d.]+)"[^>]* class="{kind}"', drawn) for kind in ("floor", "pruned", "dense")
    }
    left = [float(one[1]) for one in boxes.values() if one]
    assert left == sorted(left)
    assert len(left) == 3
    assert f"dense: median {found.dense.median:.3f} ms" in drawn


def test_the_time_goes_where_the_medians_say() -> None:
    found = bench()
    names = [one.name for one in charts.steps(found)]
    assert names == ["dense", "fewer tokens", "choosing them", "pruned"]
    _, fewer, choosing, _ = charts.steps(found)
    assert fewer.end - fewer.start == pytest.approx(-3, abs=0.1)
    assert choosing.end - choosing.start == pytest.approx(1, abs=0.1)
    wide = charts.steps(bench(fp32=report_bundles.samples()["pruned"] + 1))
    assert [one.name for one in wide] == ["dense", "fewer tokens, in float32", "narrower numbers", "pruned"]
    bare = report({key: report_bundles.samples()[key] for key in ("dense", "pruned")}, 1, {})
    assert [one.name for one in charts.steps(bare)] == ["dense", "pruning", "pruned"]
    drawn = charts.waterfall(found)
    assert drawn.count('class="saved"') == drawn.count('class="added"') == 1


def test_devices_that_claim_nothing_are_hollow() -> None:
    def row(name: str, speedup: float, claimed: bool) -> Row:
        interval = (speedup - 0.1, speedup + 0.1)
        return Row(name, "a", "b", "fp32", 1, 1, (1, 1), 1, 1, 1, speedup, interval, claimed, 1, None, None, "", False)

    drawn = charts.speedups([row("orin", 1.5, True), row("x" * 90, 0.9, False)])
    assert [one.get("class") for one in ElementTree.fromstring(drawn).iter("circle")] == ["pruned", "hollow"]
    assert "x" * 51 + "…" in drawn


def test_answers_on_many_images_are_shares_with_intervals_and_classes(tmp_path: Path) -> None:
    found = Evaluation.read(report_bundles.evaluation(tmp_path), "evaluation")
    drawn = charts.shares(found)
    low, high = found.answers.agreement_interval
    assert f"agrees with dense: 83.33 % ({100 * low:.2f} to {100 * high:.2f})" in drawn
    assert drawn.count("<circle") == 3
    bare = charts.shares(replace(found, answers=Fidelity(6, 1.0, 0.0)))
    assert bare.count("<circle") == 1
    rows = charts.classes(found.worst[:2], ["a <b>", "c"])
    assert "a &lt;b&gt;: 3 → 1 of 3" in rows
    assert "The classes that lost most: a &lt;b&gt; -67%; c +0%." in rows
    assert re.findall(r'width="(\d+\.?\d*)"', rows)[:2] == ["290", "96.67"]


def test_time_by_block_is_drawn_dense_above_pruned() -> None:
    dense = BlockTimes({"embedding": 1.0, "block 0": 4.0, "block 1": 4.0, "head": 0.5}, 10.0)
    pruned = BlockTimes({"embedding": 1.0, "block 0": 5.0, "block 1": 2.0, "head": 0.5}, 9.0)
    drawn = charts.times(ByBlock("onnxruntime", 20, {"dense": dense, "pruned": pruned}))

    def bars(kind: str) -> list[float]:
        return [float(one) for one in re.findall(rf'width="([\d.]+)" height="6" class="{kind}"', drawn)]

    assert bars("dense") == [37, 148, 148, 18.5]  # of 185 for the longest, which is a pruned one
    assert bars("pruned") == [37, 185, 74, 18.5]
    assert "4.000 → 5.000" in drawn
    assert "Milliseconds by block: 9.500 in all dense, 8.500 pruned." in drawn


def test_work_too_little_for_its_digits_is_not_told_as_nothing() -> None:
    drawn = charts.costs({"dense": [1.0, 1.0], "pruned": [0.5, 0.5], "scoring": [0.0002, 0.0]})
    assert "0.500 + &lt;0.001" in drawn
    assert ">0.500<" in drawn
