"""The methods as plain data, for people and programs: what each does, and what can be said to it."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from . import DEFAULT, METHODS
from .base import Method


def catalogue() -> list[dict[str, Any]]:
    """Every method; see `vitrim.api.methods`."""
    return [_entry(method) for method in METHODS.values()]


def _entry(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "about": method.about,
        "paper": method.paper or None,
        "merges": method.merges,
        "default": method.name == DEFAULT,
        "parameters": fields_of(method.Parameters),
        "stage": fields_of(method.StageOptions),
        "presets": {preset.name: preset.about for preset in method.presets},
    }


def fields_of(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The keys of a model: `name`, `values` that it takes in words, `default` as JSON has it, and `meaning`."""
    schema = model.model_json_schema()["properties"] if model.model_fields else {}
    return [
        {"name": name, "values": in_words(part), "default": part["default"], "meaning": part["description"]}
        for name, part in schema.items()
    ]


def in_words(schema: dict[str, Any]) -> str:
    """What a JSON Schema of one value allows, as a person would say it."""
    if "anyOf" in schema:
        return " or ".join(in_words(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(value if isinstance(value, str) else json.dumps(value) for value in schema["enum"])
    if schema["type"] == "array":
        return f"[{', '.join(in_words(part) for part in schema['prefixItems'])}]"
    if schema["type"] == "boolean":
        return "true, false"
    words = {"integer": "whole number", "number": "number", "string": "text", "null": "null"}[schema["type"]]
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = [f"{word} {limit:g}" for word, limit in (("from", low), ("to", high)) if limit is not None]
    return " ".join([words, *bounds])
