"""What a recipe cannot ask of slimming."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from vitrim.recipes.schema.sections.section import Section
from vitrim.recipes.schema.sections.slim import SlimSection


@pytest.mark.parametrize(
    ("section", "values", "said"),
    [
        (SlimSection, {"widths": "w", "heads": False, "neurons": False}, "heads and neurons are both false"),
        (SlimSection, {"widths": "w", "multiple": 12}, "multiple of 8"),
    ],
)
def test_what_is_refused(section: type[Section], values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        section.model_validate(values)
