from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
import report_bundles

from vitrim.exporter.graph.precision.report import PrecisionReport
from vitrim.exporter.runtime.parity import Limits, Parity, Rung
from vitrim.exporter.runtime.rungs import close, compare, exact
from vitrim.exporter.runtime.tensorrt.identity import EngineIdentity
from vitrim.exporter.runtime.tensorrt.inventory import Kernel
from vitrim.recipes.report import proofs


def rungs() -> tuple[Rung, ...]:
    held = report_bundles.golden()
    near = held | {"logits": held["logits"] + np.float32(1e-4)}
    return (
        exact("same", held["logits"], held["logits"]),
        compare("near", held, near, atol=1e-3, tie=1e-3),
        compare("far", held, held | {"logits": held["logits"] + np.float32(1e-2)}, atol=1e-3, tie=1e-3),
        close("half", held, near, cosine=0.999, agreement=0.9),
    )


def test_every_rung_stands_against_its_limit() -> None:
    parity = Parity(1e-3, 1e-3, rungs(), Limits(cosine=0.999, agreement=0.9))
    same, near, far, half = proofs.ladder_steps(parity)
    assert (same.value, proofs.words(same)) == (0, "0")
    for step, error in ((near, 1e-4), (far, 1e-2)):
        assert step.value == pytest.approx(error, rel=0.05)
        assert step.limit == pytest.approx(1e-3 * step.rung.unit)
    assert half.limit == pytest.approx(0.001)
    assert 0 <= (half.value or 0) < 1e-6
    drawn = ElementTree.fromstring(proofs.ladder(parity))
    dots = [(one.get("class"), float(one.get("cx", "nan"))) for one in drawn.iter("circle")]
    assert [kind for kind, _ in dots] == ["passed", "passed", "failed", "passed"]
    assert dots[0][1] < dots[1][1] < dots[2][1]
    assert sum(one.get("class") == "limit" for one in drawn.iter("line")) == 4


def test_a_rung_without_numbers_has_no_dot() -> None:
    held = report_bundles.golden()
    lost = compare("lost", held, {"logits": held["logits"]}, atol=1e-3, tie=1e-3)
    assert not lost.passed
    (step,) = proofs.ladder_steps(Parity(1e-3, 1e-3, (lost,)))
    assert (step.value, proofs.words(step)) == (None, "none")


def test_nodes_in_float32_by_reason() -> None:
    found = PrecisionReport(
        asked="int8",
        name="int8",
        float32_nodes={"pruned": ("norm", "large", "scan"), "floor": ("other",)},
        speedup_over_fp32=None,
        interval=None,
        overflowing={"pruned": {"large": 70000.0}},
        scan={"float32": ["scan"], "alone_kl": {"scan": 0.012}},
    )
    rows = [(row.nodes, row.words.split(" ")[0]) for row in proofs.precision_map(found)]
    assert rows == [
        ((("large", "7e+04"),), "values"),
        ((("scan", "KL 0.012"),), "changes"),
        ((("norm", ""),), "chooses"),
    ]
    drawn = proofs.precision_bars(found)
    assert drawn is not None
    assert drawn.count('class="bar"') == 3
    none = PrecisionReport("fp16", "fp16", {}, None, None)
    assert (proofs.precision_map(none), proofs.precision_bars(none)) == ([], None)


def test_kernels_by_part() -> None:
    made = [
        Kernel("a", "gemm", "product", "fp16", (), "block 1"),
        Kernel("b", "gemm", "product", "fp16", (), "block 1"),
        Kernel("c", "myl", "top-k", None, (), "stage 1"),
        Kernel("d", "myl", "copy", None, (), None),
    ]
    rows = proofs.kernels(EngineIdentity("0", "1", kernels=tuple(made)))
    assert rows == [("block 1", 2, "2 product"), ("stage 1", 1, "1 top-k"), ("unknown", 1, "1 copy")]
    assert '<rect x="74" y="25" width="120" height="12" class="stage">' in proofs.kernel_bars(rows)
    assert proofs.kernels(EngineIdentity("0", "1")) == []
