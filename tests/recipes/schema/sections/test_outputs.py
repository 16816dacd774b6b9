"""Benchmarks and engines of a recipe: numbers that they can have."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from vitrim.recipes.schema.sections.outputs import BenchSection, EngineSection
from vitrim.recipes.schema.sections.section import Section


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        (BenchSection, {"runs": 5.0}, "valid integer"),
        (EngineSection, {"capabilities": ["8.7"]}, r"no compute capability '8\.7' \(it has 7\.5, 8\.0, 8\.6, 8\.9"),
        (EngineSection, {"capabilities": [8.6, "8.6"]}, r"named twice: 8\.6, 8\.6"),
        (EngineSection, {"capabilities": [8]}, "valid string"),
        (EngineSection, {"capabilities": 8.6}, "valid list"),
        (BenchSection, {"rounds": 5}, "Extra inputs are not permitted"),
    ],
)
def test_what_is_refused(section: type[Section], values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        section.model_validate(values)


def test_capabilities_may_be_the_numbers_that_yaml_makes_of_them() -> None:
    assert EngineSection.model_validate({"capabilities": [8.0, "8.6", 12.0]}).capabilities == ["8.0", "8.6", "12.0"]
    assert EngineSection().capabilities == []
