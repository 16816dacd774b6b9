"""The recipe: one YAML file that says what to prune, how, for which target, and what counts as right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, model_validator

from ...exporter.core.outcome import MEASURES
from .sections.inputs import OUTCOME_IMAGES, ImagesSection, ModelSection
from .sections.outputs import (
    BenchSection,
    EngineSection,
    ExportSection,
    ParitySection,
    PrecisionSection,
    RequireSection,
)
from .sections.prune import PruneSection
from .sections.section import Section
from .sections.slim import SlimSection


class Recipe(Section):
    """Everything that one export needs. Relative paths start at the recipe's folder.

    Attributes:
        folder: where relative paths start; those of a recipe in use are absolute.
        file: that it was read from; None where it came from Python.
    """

    rules = ({"anyOf": [{"properties": {key: {"type": "object"}}, "required": [key]} for key in ("slim", "prune")]},)

    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _file: Path | None = PrivateAttr(default=None)

    model: ModelSection
    images: ImagesSection
    evaluate: ImagesSection | None = Field(
        default=None,
        description="Images for agreement and accuracy; null: those of `images` that it leaves over.",
    )
    slim: SlimSection | None = Field(default=None, description="Make the model narrower first.")
    prune: PruneSection | None = Field(default=None, description="Prune its tokens.")
    export: ExportSection = Field(default_factory=ExportSection)
    precision: PrecisionSection = Field(default_factory=PrecisionSection)
    parity: ParitySection = Field(default_factory=ParitySection)
    bench: BenchSection = Field(default_factory=BenchSection)
    engine: EngineSection = Field(default_factory=EngineSection)
    require: RequireSection = Field(
        default_factory=RequireSection, description="What must hold, or the export fails and publishes nothing."
    )

    @property
    def outcome(self) -> tuple[str, float] | None:
        """The outcome that tokens are pruned for, and its bound; None where there is none."""
        target = None if self.prune is None else self.prune.target
        return None if target is None else target.outcome

    @property
    def prunes(self) -> bool:
        """Whether tokens are pruned."""
        return self.prune is not None

    @property
    def folder(self) -> Path:
        """Where relative paths start."""
        return self._folder

    @property
    def file(self) -> Path | None:
        """The file that it was read from."""
        return self._file

    def within(self, folder: Path, file: Path | None = None) -> Recipe:
        """The recipe as one of a folder, and of a file in it."""
        other = self.model_copy()
        other._folder, other._file = folder, file
        return other

    @model_validator(mode="before")
    @classmethod
    def _enough_images(cls, data: Any) -> Any:
        """More images where an outcome is decided on them, and nobody says how many."""
        prune = data.get("prune") if isinstance(data, dict) else None
        target = prune.get("target") if isinstance(prune, dict) else None
        if not isinstance(target, dict) or all(target.get(name) is None for name in MEASURES):
            return data
        sections = {name: data[name] for name in ("images", "evaluate") if isinstance(data.get(name), dict)}
        return {**data, **{name: {"count": OUTCOME_IMAGES, **section} for name, section in sections.items()}}

    @model_validator(mode="after")
    def _something_to_do(self) -> Recipe:
        if self.slim is None and self.prune is None:
            raise ValueError("give prune (fewer tokens), slim (fewer heads and neurons) or both")
        return self


def json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, as published in recipes/schema.json."""
    schema = Recipe.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "vitrim recipe"
    return schema


def sections(section: type[Section] = Recipe, prefix: str = "") -> Iterator[tuple[str, type[Section]]]:
    """Every section of a recipe by its path, such as `prune.target`; the recipe itself has an empty one."""
    yield prefix, section
    for name, field in section.model_fields.items():
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(inner, type) and issubclass(inner, Section):
                yield from sections(inner, f"{prefix}.{name}" if prefix else name)


def file_keys() -> list[tuple[str, str]]:
    """(path of the section, key) of everything in a recipe that names a file or folder."""
    return [
        (path, name)
        for path, section in sections()
        for name, field in section.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("format") == "path"
    ]


def named_files(data: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """(section, its path, key) of everything in a recipe as plain data that names a file or folder."""
    for path, key in file_keys():
        section: Any = data
        for part in path.split("."):
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict) and section.get(key) is not None:
            yield section, path, key
