"""Weights & Biases keeps a run offline, where it is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import report_bundles

from vitrim.exporter.core.errors import EnvironmentLackError
from vitrim.recipes.listener import Silence, tell_published
from vitrim.recipes.tracking.facts import facts_of
from vitrim.recipes.tracking.tracker import tracked


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(EnvironmentLackError, match=r"pip install 'vitrim\[wandb\]'"), tracked("wandb", Silence()):
        pass


def test_a_bundle_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed: pip install 'vitrim[wandb]'")
    for name, value in (("MODE", "offline"), ("DIR", str(tmp_path)), ("SILENT", "true"), ("CONSOLE", "off")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    out = report_bundles.make(tmp_path / "out")
    facts = facts_of(out)
    with tracked("wandb", Silence()) as listener:
        tell_published(listener, out)
        run = wandb.run
        assert run.name == "out"
        assert {key: run.summary[key] for key in facts.metrics} == pytest.approx(facts.metrics)
        assert {key: run.config[key] for key in facts.parameters} == facts.parameters
    assert wandb.run is None
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
