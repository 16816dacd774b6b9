"""MLflow keeps a run in a file store, where it is installed."""

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
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(EnvironmentLackError, match=r"pip install 'vitrim\[mlflow\]'"), tracked("mlflow", Silence()):
        pass


def test_a_bundle_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: pip install 'vitrim[mlflow]'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    out = report_bundles.make(tmp_path / "out")
    facts = facts_of(out)
    with tracked("mlflow", Silence()) as listener:
        number = mlflow.active_run().info.run_id
        tell_published(listener, out)
    run = mlflow.get_run(number)
    assert run.info.status == "FINISHED"
    assert run.data.params == {key: str(value) for key, value in facts.parameters.items()}
    assert run.data.metrics == pytest.approx(facts.metrics)
    assert run.data.tags["mlflow.runName"] == "out"
    kept = mlflow.artifacts.list_artifacts(run_id=number, artifact_path="out")
    assert {Path(one.path).name for one in kept} == {path.name for path in facts.files}
    with mlflow.start_run(), tracked("mlflow", Silence()):
        pass
    with pytest.raises(KeyError), tracked("mlflow", Silence()):
        raise KeyError("lost")
    lost = mlflow.last_active_run()
    assert (lost.info.status, lost.data.tags["error"]) == ("FAILED", "'lost'")
