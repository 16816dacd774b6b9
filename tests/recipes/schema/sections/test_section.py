"""What holds of every section: bounds that the schema has too, a description of every key, no strange numbers."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from vitrim.recipes.schema.recipe import json_schema, sections


def test_every_key_says_what_it_is_and_every_way_is_a_key() -> None:
    for path, section in sections():
        assert set(section.ways) <= set(section.model_fields), path
        assert set(section.bound) <= set(section.model_fields), path
        for name, field in section.model_fields.items():
            inner = any(f"{path}.{name}".lstrip(".") == other for other, _ in sections())
            described = inner or (path, name) in {("model", "name")} or bool(field.description)
            assert described, f"{path}.{name}"


NUMBERS = [
    (section, name)
    for _, section in sections()
    for name, field in section.model_fields.items()
    if {int, float} & {field.annotation, *getattr(field.annotation, "__args__", ())}
]


def test_every_number_of_a_recipe_has_an_upper_bound_that_the_schema_has_too() -> None:
    assert len(NUMBERS) > 35
    schemas = json_schema()["$defs"]
    for section, name in NUMBERS:
        for giant in (10**12, 1e300, 10**400):
            with pytest.raises(ValidationError, match=name):
                section.model_validate({name: giant})
        known = schemas[section.__name__]["properties"][name]
        for part in known.get("anyOf", [known]):
            if part["type"] in ("integer", "number"):
                assert {"maximum", "exclusiveMaximum"} & {*part, *known}, (section, name)


def test_numbers_that_are_none_are_refused() -> None:
    for section, name in NUMBERS:
        for strange in (float("nan"), float("inf")):
            with pytest.raises(ValidationError, match=name):
                section.model_validate({name: strange})
