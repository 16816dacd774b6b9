"""What the shell completes: recipes, their keys and values, targets, methods and models, without importing torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..exporter.core.targets import ALIASES, GROUPS, PRECISIONS, TARGETS

Field = Mapping[str, Any]  # of a JSON Schema
_PACKAGE = Path(__file__).parents[1]
_MODEL = re.compile(r"^@register_model\ndef (\w+)\(", re.MULTILINE)
_METHOD = re.compile(r'^    name = "(\w+)"', re.MULTILINE)


def complete_recipe(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The recipes that ship, and files."""
    shipped = sorted(path.stem for kind in ("", "models/") for path in (_PACKAGE / "recipes").glob(f"{kind}*.yaml"))
    return [CompletionItem(begun, type="file"), *_beginning(begun, shipped)]


def complete_setting(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Keys of a recipe such as `export.batch=`; behind the `=`, the values of keys that have a list of them."""
    keys = dict(_keys(json.loads((_PACKAGE / "recipes" / "schema.json").read_text("utf-8"))))
    key, equals, _ = begun.partition("=")
    if not equals:
        return _beginning(begun, (f"{one}=" for one in keys))
    return _beginning(begun, (f"{key}={value}" for value in _values(key, keys.get(key, {}))))


def complete_device(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The devices that ship, and files."""
    shipped = sorted(path.stem for path in (_PACKAGE / "recipes" / "devices").glob("*.yaml"))
    return [CompletionItem(begun, type="file"), *_beginning(begun, shipped)]


def complete_target(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Targets, their aliases, and groups of them."""
    return _beginning(begun, _targets())


def complete_method(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Pruning methods."""
    return _beginning(begun, _methods())


def complete_precision(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Precisions, and `auto`."""
    return _beginning(begun, (*PRECISIONS, "auto"))


def complete_methods(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Pruning methods behind commas."""
    return _in_list(begun, _methods())


def complete_precisions(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Precisions behind commas."""
    return _in_list(begun, PRECISIONS)


def complete_model(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The models of the installed timm."""
    return _beginning(begun, _models())


def _beginning(begun: str, words: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(begun)]


def _in_list(begun: str, words: Iterable[str]) -> list[CompletionItem]:
    """The last word of a list with commas; those that stand before it are not offered again."""
    before, comma, _ = begun.rpartition(",")
    return _beginning(begun, (f"{before}{comma}{word}" for word in words if word not in before.split(",")))


def _targets() -> list[str]:
    return [*GROUPS, *TARGETS, *ALIASES]


def _methods() -> list[str]:
    """As their sources name them: to import those takes the seconds that importing torch does."""
    return sorted(_named(_METHOD, (_PACKAGE / "exporter" / "pruning" / "methods").glob("*.py")))


def _models() -> list[str]:
    """As timm's sources name them."""
    spec = find_spec("timm")
    places = [] if spec is None else spec.submodule_search_locations or []
    return sorted(_named(_MODEL, (file for place in places for file in (Path(place) / "models").glob("*.py"))))


def _named(pattern: re.Pattern[str], files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        yield from pattern.findall(file.read_text("utf-8"))


def _values(key: str, field: Field) -> Iterable[str]:
    own = {"export.target": _targets, "prune.method": _methods, "model.name": _models}
    return own[key]() if key in own else (json.dumps(value).strip('"') for value in _listed(field))


def _listed(field: Field) -> list[Any]:
    """The values of a field that is one of a list, or a switch."""
    if field.get("type") == "boolean":
        return [False, True]
    return list(field.get("enum", ())) + [value for one in field.get("anyOf", ()) for value in _listed(one)]


def _keys(schema: Field, known: Field | None = None, before: str = "") -> Iterator[tuple[str, Field]]:
    """Every key of a recipe with its field, those of a section with the section's before them."""
    known = schema["$defs"] if known is None else known
    for name, field in schema.get("properties", {}).items():
        references = [one["$ref"] for one in (field, *field.get("anyOf", ())) if "$ref" in one]
        for reference in references:
            yield from _keys(known[reference.rpartition("/")[2]], known, f"{before}{name}.")
        if not references:
            yield f"{before}{name}", field
