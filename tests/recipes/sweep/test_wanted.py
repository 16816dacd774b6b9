from __future__ import annotations

from typing import Any

import pytest

from vitrim.exporter.core.errors import InputError
from vitrim.recipes.sweep.wanted import Wanted


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"methods": ()}, "methods is empty, so there is nothing to sweep"),
        ({"ratios": ()}, "ratios is empty"),
        ({"ratios": (0.5, 1.5)}, "ratios has 1.5; give numbers above 0 and up to 1$"),
        ({"agreements": (98.0,)}, "agreements has 98; give numbers above 0 and up to 1$"),
        ({"speedups": (0.0,)}, "speedups has 0; "),
        ({"look": 0}, "look is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_asked_for_is_named(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Wanted(**given)


def test_no_constraint_is_no_mistake() -> None:
    assert Wanted(agreements=(), speedups=()).ratios == (0.5, 0.6, 0.7, 0.8)
