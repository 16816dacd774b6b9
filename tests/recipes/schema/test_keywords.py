"""Python's keywords as keys of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vitrim.exporter.core.errors import InputError
from vitrim.recipes.schema.keywords import export_keywords, prune_keywords
from vitrim.recipes.schema.recipe import sections
from vitrim.recipes.schema.sections.outputs import BenchSection


def test_sections_bare_values_and_keys() -> None:
    found = export_keywords(
        {
            "images": Path("photos"),
            "evaluate": {"path": "more/", "count": 9},
            "precision": "int8",
            "target": "jetpack-6",
            "batch": 8,
            "runs": 200,
            "atol": 1e-3,
            "bench": BenchSection(threads=1),
            "top_k": None,
        }
    )
    assert found == {
        "images": {"path": "photos"},
        "evaluate": {"path": "more/", "count": 9},
        "precision": {"name": "int8"},
        "export": {"target": "jetpack-6", "batch": 8},
        "bench": {"runs": 200, "threads": 1},
        "parity": {"atol": 1e-3},
    }


def test_ways_to_a_budget() -> None:
    assert prune_keywords("frugal", {"flops_ratio": 0.65}) == {"method": "frugal", "target": {"flops_ratio": 0.65}}
    assert prune_keywords(None, {"keep_rates": {3: 0.7}, "final": False}) == {"keep_rates": {3: 0.7}, "final": False}
    assert prune_keywords("tome", {"remove": (8, 8), "target": None}) == {"method": "tome", "remove": [8, 8]}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: export_keywords({"batsh": 1}), "export has no keyword 'batsh'; did you mean batch"),
        (
            lambda: prune_keywords(None, {"flop_ratio": 1}),
            "no keyword 'flop_ratio'; did you mean flops_ratio",
        ),
        (lambda: export_keywords({"bench": 5}), r"bench: give a mapping of keys, such as bench=\{'runs': \.\.\.\}"),
    ],
)
def test_what_is_not_a_key_is_named(call: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()


def test_no_key_of_an_export_is_meant_for_two_sections() -> None:
    """`images` and `name` apart: the first is a section of its own, the second is never a keyword."""
    known = {
        path: section for path, section in sections() if path in ("export", "precision", "parity", "bench", "engine")
    }
    keys = [key for section in known.values() for key in section.model_fields if key not in ("images", "name")]
    assert len(keys) == len(set(keys))
