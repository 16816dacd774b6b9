"""A tracker gets the recipe and the figures of a bundle, and no graph and no image."""

from __future__ import annotations

from pathlib import Path

import pytest
import report_bundles

from vitrim.exporter.core.errors import InputError
from vitrim.recipes.report.sources import read_bundle
from vitrim.recipes.tracking.facts import facts_of


def test_figures_are_those_of_the_reports(tmp_path: Path) -> None:
    out = report_bundles.make(tmp_path / "out")
    facts, held = facts_of(out), read_bundle(out)
    assert held.bench is not None
    assert held.fidelity is not None
    assert held.budget is not None
    assert facts.name == "out"
    assert facts.metrics["speedup"] == held.bench.speedup
    assert facts.metrics["pruned.median_ms"] == held.bench.distributions["pruned"].median
    assert facts.metrics["agreement"] == held.fidelity.agreement
    assert facts.metrics["agreement.low"] == held.fidelity.agreement_interval[0]
    assert facts.metrics["gmacs.pruned"] == held.budget.gmacs["pruned"]
    assert facts.metrics["parity.passed"] == 1.0
    assert facts.metrics["parity.smallest_atol"] == held.parity.smallest_atol
    assert all(type(value) is float for value in facts.metrics.values())
    assert facts.tags["target"] == "ort-cpu"


def test_the_recipe_s_keys_are_parameters_and_only_reports_are_files(tmp_path: Path) -> None:
    facts = facts_of(report_bundles.make(tmp_path / "out"))
    assert all(value is not None and not isinstance(value, dict) for value in facts.parameters.values())
    assert {key.partition(".")[0] for key in facts.parameters} <= {"model", "images", "prune", "export", "bench"}
    assert {path.suffix for path in facts.files} <= {".json", ".md", ".yaml"}
    assert "budget.json" in {path.name for path in facts.files}


def test_a_damaged_bundle_is_not_kept(tmp_path: Path) -> None:
    out = report_bundles.make(tmp_path / "out")
    (out / "budget.json").write_text("{}")
    with pytest.raises(InputError, match=r"budget\.json is not the file"):
        facts_of(out)
