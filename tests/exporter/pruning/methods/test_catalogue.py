"""The methods as plain data: what `vitrim methods` and programs are told."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from vitrim.exporter.pruning.methods import DEFAULT, METHODS
from vitrim.exporter.pruning.methods.catalogue import catalogue, fields_of, in_words


class Keys(BaseModel):
    """One of each kind of key."""

    count: int = Field(default=3, ge=0, description="of rounds")
    share: float | None = Field(default=None, ge=0, le=1, description="of the images")
    mode: Literal["drop", "fuse"] = Field(default="drop", description="what happens")
    open: bool = Field(default=False, description="whether")
    pair: tuple[float, float] | None = Field(default=(0.01, 0.7), description="limits")


def test_keys_are_told_in_words_with_their_defaults() -> None:
    assert fields_of(Keys) == [
        {"name": "count", "values": "whole number from 0", "default": 3, "meaning": "of rounds"},
        {"name": "share", "values": "number from 0 to 1 or null", "default": None, "meaning": "of the images"},
        {"name": "mode", "values": "drop, fuse", "default": "drop", "meaning": "what happens"},
        {"name": "open", "values": "true, false", "default": False, "meaning": "whether"},
        {"name": "pair", "values": "[number, number] or null", "default": [0.01, 0.7], "meaning": "limits"},
    ]
    assert fields_of(BaseModel) == []


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "string"}, "text"),
        ({"type": "number", "maximum": 0.5}, "number to 0.5"),
        ({"type": "number", "minimum": 0.0, "maximum": 1.0}, "number from 0 to 1"),
        ({"type": "integer", "minimum": 1, "maximum": 65536}, "whole number from 1 to 65536"),
        ({"enum": ["a", 3, None]}, "a, 3, null"),
    ],
)
def test_a_schema_is_said_as_a_person_would(schema: dict[str, Any], words: str) -> None:
    assert in_words(schema) == words


def test_every_method_is_there_with_all_its_keys() -> None:
    listed = catalogue()
    assert [entry["name"] for entry in listed] == list(METHODS)
    assert [entry["name"] for entry in listed if entry["default"]] == [DEFAULT]
    assert json.loads(json.dumps(listed)) == listed
    for entry, method in zip(listed, METHODS.values(), strict=True):
        for kind, model in (("parameters", method.Parameters), ("stage", method.StageOptions)):
            assert [row["name"] for row in entry[kind]] == list(model.model_fields)
            assert all(row["values"] and row["meaning"] for row in entry[kind])
            assert json.loads(model().model_dump_json()) == {row["name"]: row["default"] for row in entry[kind]}
        assert list(entry["presets"]) == [preset.name for preset in method.presets]


def test_what_is_said_of_one_method() -> None:
    found = next(entry for entry in catalogue() if entry["name"] == "tofu")
    assert (found["merges"], found["default"], found["presets"]) == (True, False, {})
    assert found["paper"] == "ToFu, WACV 2024, arXiv 2312.01026, section 3.3"
    (row,) = found["stage"]
    assert (row["name"], row["values"], row["default"]) == ("mode", "drop, fuse or null", None)
    assert next(entry for entry in catalogue() if entry["name"] == "slice")["paper"] is None
