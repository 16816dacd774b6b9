"""How much is pruned is said in exactly one way, and by numbers that a model can have."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from helpers import small_recipe
from pydantic import ValidationError

from vitrim.recipes.schema.recipe import json_schema
from vitrim.recipes.schema.sections.prune import PruneSection, TargetSection
from vitrim.recipes.schema.sections.section import Section


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        (PruneSection, {}, "give exactly one of target, preset, keep_rates, remove, mass, budget; found none of them"),
        (PruneSection, {"mass": 0.5, "preset": "a"}, "mass, budget; found preset and mass"),
        (PruneSection, {"keep_rates": {-1: 0.5}}, r"block -1 has rate 0\.5; blocks count from 0 and rates lie in"),
        (PruneSection, {"keep_rates": {1: 0.0}}, r"block 1 has rate 0\.0"),
        (PruneSection, {"remove": 0}, "0 removes nothing; give a number above 0, or a list of numbers from 0 up"),
        (PruneSection, {"remove": [0, 0]}, r"\[0, 0\] removes nothing"),
        (PruneSection, {"remove": [3, -1]}, r"\[3, -1\] removes nothing"),
        (TargetSection, {"gflops": 1.0, "speedup": 2.0}, "found gflops and speedup"),
        (TargetSection, {"agreement": 0.9, "kl": 0.1, "speedup": 2.0}, "found agreement and kl"),
        (TargetSection, {"agreement": 1.0}, "less than 1"),
    ],
)
def test_what_is_refused(section: type[Section], values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        section.model_validate(values)


def test_a_list_that_removes_something_somewhere_is_taken() -> None:
    assert PruneSection(remove=[0, 3]).remove == [0, 3]


def test_no_model_has_a_billion_tokens() -> None:
    for remove in (10**9, [3, 10**9]):
        with pytest.raises(ValidationError, match="1000000000 is above 1000000; no model has as many tokens"):
            PruneSection(remove=remove)


@pytest.mark.parametrize(
    ("target", "fits"),
    [
        ({"agreement": 0.97}, True),
        ({"agreement": 0.97, "speedup": 1.5}, True),
        ({"speedup": 1.5}, True),
        ({"gflops": 0.8, "speedup": 1.5}, False),
        ({"agreement": 0.97, "kl": 0.1}, False),
        ({}, False),
    ],
)
def test_the_schema_knows_that_a_speed_may_be_a_wish(target: dict[str, float], fits: bool) -> None:
    recipe = small_recipe() | {"prune": {"target": target}}
    assert jsonschema.Draft202012Validator(json_schema()).is_valid(recipe) is fits
