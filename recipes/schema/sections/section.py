"""What every section of a recipe is: keys with types and bounds, of some exactly one, and nothing else."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_validator

IN_MEMORY = "given"  # the key of what Python hands over; a file cannot
# Bounds, so that no slip asks for a billion: far above what anybody runs, and below what a machine would choke on.
MOST_IMAGES, MOST_SEED, MOST_TOKENS = 10_000_000, 2**32 - 1, 1_000_000
MOST_ARRAY_IMAGES = 100_000  # that are held at once
_CHOSEN = {"not": {"enum": [None, False]}}  # a key that is given


class Section(BaseModel):
    """A part of a recipe: unknown keys and wrong types are refused.

    Attributes:
        ways: keys of which exactly one is given; `--set` of one of them takes the place of the others.
        beside: by one of the ways, those that it may also stand beside, and then chooses nothing.
        bound: keys that say something of another key's value, by that key; they go when it changes.
        rules: for the JSON Schema, what validators of the section refuse.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    ways: ClassVar[tuple[str, ...]] = ()
    beside: ClassVar[dict[str, tuple[str, ...]]] = {}
    bound: ClassVar[dict[str, tuple[str, ...]]] = {}
    rules: ClassVar[tuple[dict[str, Any], ...]] = ()

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Pydantic's schema, with what only validators know: exactly one of the ways, and the section's own rules."""
        given = handler(core)
        schema = handler.resolve_ref_schema(given)
        chosen = {key: {"properties": {key: _CHOSEN}, "required": [key]} for key in cls.ways}
        alone = {key: {"not": {"anyOf": [chosen[other] for other in others]}} for key, others in cls.beside.items()}
        ways = {"oneOf": [{**rule, **alone.get(key, {})} for key, rule in chosen.items()]}
        own = [ways, *cls.rules] if cls.ways else list(cls.rules)
        if own:
            schema["allOf"] = own
        return given

    @model_validator(mode="after")
    def _one_way(self) -> Section:
        found = [key for key in self.ways if getattr(self, key) is not None and getattr(self, key) is not False]
        found = [key for key in found if not set(self.beside.get(key, ())) & set(found)]
        if self.ways and len(found) != 1:
            offered = ", ".join(key for key in self.ways if key != IN_MEMORY)
            raise ValueError(f"give exactly one of {offered}; found {' and '.join(found) or 'none of them'}")
        return self


def file_key(description: str) -> Any:
    """A key that names a file or folder; relative ones start at the recipe's folder."""
    return Field(default=None, description=description, json_schema_extra={"format": "path"})
