"""What an export hands back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitrim.exporter.core import layout
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.runtime.bundles.golden import load_golden


def test_a_bundle_is_its_report_in_a_notebook(made: tuple[Path, Any]) -> None:
    found = made[1]._repr_html_()
    assert found.startswith('<iframe title="vitrim report" sandbox srcdoc="')
    assert found.count("data:image/jpeg") == len(load_golden(made[0])["image"]) == 2


def test_its_runner_answers_as_the_bundle_does(made: tuple[Path, Any]) -> None:
    golden, run = load_golden(made[0]), made[1].runner()
    np.testing.assert_allclose(run(golden["image"][:1])["logits"], golden["logits"][:1], atol=1e-4)
    with pytest.raises(InputError, match="has no graphs for 96x96; it has 64x64"):
        made[1].runner("96x96")


def test_it_is_plain_data_of_all_that_was_found(made: tuple[Path, Any]) -> None:
    plain = made[1].to_json()
    assert plain["folder"] == str(made[0])
    assert plain["parity"] == made[1].parity.to_json()
    assert plain["budget"] == made[1].budget.model_dump(mode="json")
    assert (plain["precision"], plain["widths"], plain["report"]) == (None, None, None)
    assert "sizes" not in plain
    assert (made[0] / layout.MODEL).exists()
