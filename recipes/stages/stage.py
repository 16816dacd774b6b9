"""What a stage of the pipeline is: a declaration of what it needs, from which its cache key follows.

A stage sees the results of the stages that it `needs`, the keys of the recipe that it `reads`, and the inputs that it
`takes`; anything else is an error (`view`). So its key, made of those and of the code that it runs, can miss nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel

from ...exporter.core.files import sha256
from ...exporter.core.sources import digest

if TYPE_CHECKING:
    from ..schema.recipe import Recipe
    from .view import View

# `model`: the model whose tokens are pruned, slimmed or as it came; `dense`: as it came; `plan`: a budget in memory.
Input = Literal["model", "dense", "plan", "calibration", "evaluation"]


class Stage:
    """One step from a recipe to a bundle.

    Attributes:
        name: in the cache and on the screen; letters only.
        needs: names of the stages whose results it reads, where the recipe wants them.
        reads: keys of the recipe, such as `export.batch` or a whole section, or what a section derives from its keys.
        takes: inputs beside the recipe, known by their content.
        last_of_torch: whether PyTorch's models are needed after it only to explain a failure.
        timed: whether its result holds times of one machine at one moment, which other outputs do not share.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = ()
    takes: ClassVar[tuple[Input, ...]] = ()
    last_of_torch: ClassVar[bool] = False
    timed: ClassVar[bool] = False

    @staticmethod
    def wanted(recipe: Recipe) -> bool:
        """Whether a recipe asks for it."""
        return True

    @staticmethod
    def make(view: View, folder: Path) -> None:
        """Fill a folder with the result."""
        raise NotImplementedError

    @staticmethod
    def judge(folder: Path) -> None:
        """Raise where a result, made now or before, ends the run."""

    @staticmethod
    def result_key(folder: Path, key: str) -> str:
        """What the stages behind are keyed by: this one's key, or a hash of what they read of its result."""
        return key


def stage_key(
    stage: type[Stage],
    recipe: Recipe,
    contents: Mapping[str, str],
    results: Mapping[str, str],
    versions: Mapping[str, str | None],
) -> str:
    """The cache key of a stage: 16 hex digits.

    Args:
        stage: whose.
        recipe: of which the declared keys count; files count by their content.
        contents: hash of every input that the stage takes.
        results: what the stages behind each stage are keyed by; one that the recipe does not want is not in it.
        versions: of the packages that do the work.
    """
    parts = {
        "needs": {need: results.get(need) for need in stage.needs},
        "reads": {key: plain_value(recipe, key) for key in stage.reads},
        "takes": {name: contents[name] for name in stage.takes},
        "code": digest(stage.__module__.partition(".")[2]),
        "versions": dict(versions),
    }
    return short_hash(parts)


def short_hash(data: Any) -> str:
    """16 hex digits over plain data."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def plain_value(recipe: Recipe, key: str) -> Any:
    """What a key of a recipe says, as plain data; a file is its hash, and a section that is not given None.

    Raises:
        AttributeError: a recipe has no such key.
    """
    *path, last = key.split(".")
    holder: Any = recipe
    for part in path:
        holder = getattr(holder, part)
        if holder is None:
            return None
    return _content(holder, last)


def _content(section: BaseModel, name: str) -> Any:
    value = getattr(section, name)
    if isinstance(value, BaseModel):
        keys = (key for key, field in type(value).model_fields.items() if not field.exclude)
        return {key: _content(value, key) for key in keys}
    if name not in type(section).model_fields:  # what a section says of itself
        return value
    extra = type(section).model_fields[name].json_schema_extra
    is_file = isinstance(extra, dict) and extra.get("format") == "path" and value is not None
    return sha256(value) if is_file and Path(value).is_file() else value
