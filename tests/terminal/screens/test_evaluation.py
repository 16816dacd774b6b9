"""An evaluation on a screen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from evaluated_bundles import make_bundle, make_photos

from vitrim.cli import cli
from vitrim.recipes.evaluation.result import Evaluation


def run(*words: Any) -> str:
    done = CliRunner().invoke(cli, ["evaluate", *map(str, words)], catch_exceptions=False, env={"COLUMNS": "120"})
    assert done.exit_code == 0
    return done.stdout


def test_it_shows_figures_with_intervals_and_the_classes_that_lost_most(tmp_path: Path) -> None:
    bundle, photos = make_bundle(tmp_path / "b"), make_photos(tmp_path / "photos")
    out = tmp_path / "e.json"
    shown = run(bundle, "--images", photos, "-o", out)
    seen = Evaluation.read(out, "evaluation")
    for words in ("agrees with dense", "divergence, nats", "top-1, dense", "top-1, pruned less dense", "McNemar"):
        assert words in shown
    assert f"{100 * seen.answers.agreement:.1f} %" in shown
    worst = min(seen.classes, key=lambda one: ((one.right_pruned or 0) - (one.right_dense or 0)) / one.images)
    assert f"Classes that lost most: {worst.index} ({worst.right_dense} to {worst.right_pruned} right of" in shown
    assert json.loads(run(bundle, "--images", photos, "--json"))["answers"] == seen.answers.to_json()


def test_without_labels_it_says_nothing_of_right_and_wrong(tmp_path: Path) -> None:
    bundle, photos = make_bundle(tmp_path / "b"), make_photos(tmp_path / "photos", flat=True)
    shown = run(bundle, "--images", photos)
    assert "top-1" not in shown
    assert "McNemar" not in shown
    assert " agree)" in shown
    assert run(bundle, "--images", photos, "--print-python").startswith(
        "from vitrim import api\n\napi.evaluate_bundle("
    )
