"""What was tried and kept, as a file holds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.runtime.bench.choice import Choice, Tried

CHOICE = Choice(
    (
        Tried("ort-cpu", "fp32", 1.0, 2.0, 1.0, (1.0, 1.0)),
        Tried("openvino", "bf16", 0.99, 1.0, 2.0, (1.9, 2.1)),
        Tried("openvino", "fp16", refused="this processor computes fp16 in float32"),
    ),
    "openvino",
    "bf16",
    "a processor",
    2,
    1,
)


def test_a_file_holds_it_whole(tmp_path: Path) -> None:
    CHOICE.write(tmp_path / "choice.json")
    assert Choice.read(tmp_path / "choice.json", "choice") == CHOICE


def test_what_never_ran_has_no_numbers() -> None:
    assert CHOICE.to_json()["tried"][2] == {
        "target": "openvino",
        "precision": "fp16",
        "refused": "this processor computes fp16 in float32",
    }
    with pytest.raises(InputError, match=r"tried\[0\]"):
        Choice.from_json({**CHOICE.to_json(), "tried": [{"target": 1, "precision": "fp32"}]}, "choice.json")
