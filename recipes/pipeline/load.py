"""Reading a recipe: safe YAML, `--set` overrides, errors with the YAML path."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ... import __version__
from ...exporter.core.errors import InputError, did_you_mean
from ...exporter.pruning.budget import first_problem, ordered_problems
from .recipe import Recipe, Section, file_keys, sections

HERE = Path(__file__).parent.parent  # where the recipes lie
SHIPPED = "shipped:"  # begins the name of a file there
_LARGEST = 1 << 20
_DEEPEST = 20


class RecipeLoader(yaml.SafeLoader):
    """YAML without what a recipe does not need: no aliases (bombs), no repeated keys; `1e-4` is a number."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases before anything is built from them."""
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not allowed in a recipe", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice; YAML would silently take the last."""
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (list, dict)) or key in seen:
                problem = f"the key {key!r} stands twice" if not isinstance(key, (list, dict)) else "keys must be names"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


RecipeLoader.yaml_implicit_resolvers = {
    key: list(value) for key, value in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def shipped() -> dict[str, Path]:
    """Recipes that come with vitrim, by name."""
    return {path.stem: path for path in sorted(HERE.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """A recipe's file from a path or the name of one that ships.

    Raises:
        InputError: neither; close matches are given.
    """
    path = Path(name)
    if path.is_file():
        return path
    known = shipped()
    if name in known:
        return known[name]
    if path.is_dir():
        raise InputError(f"{name} is a folder; give the recipe's YAML file")
    hint = did_you_mean(name, known)
    raise InputError(
        f"there is no recipe file {name}, and none of that name ships{hint} (there are {', '.join(known)})"
    )


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Safe YAML to plain data.

    Raises:
        InputError: with line and column.
    """
    if len(text) > _LARGEST:
        raise InputError(f"{where} has {len(text)} characters; a recipe has at most {_LARGEST}")
    try:
        data = yaml.load(text, RecipeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise InputError(f"{where}:{at} {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise InputError(f"{where}: not valid YAML: {reason}") from error
    if not isinstance(data, dict):
        raise InputError(f"{where}: must be a mapping with the keys {', '.join(Recipe.model_fields)}")
    _check_depth(data, where)
    return data


def _check_depth(data: object, where: str, depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise InputError(f"{where}: nested more than {_DEEPEST} deep")
    values: Iterable[object] = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    for value in values:
        _check_depth(value, where, depth + 1)


def override(data: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """Apply `a.b=c` settings, values read as YAML, to a copy of the data.

    A key of which a section has exactly one, such as what says how much to prune, takes the place of the others.

    Raises:
        InputError: a setting without `=`, or a path through something that is no mapping.
    """
    result = _copy(data)
    known = dict(sections())
    for setting in settings:
        path, equals, text = setting.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise InputError(f"--set {setting!r}: write it as key.path=value, such as export.batch=8")
        where = f"--set {path}"
        value = parse_yaml(f"value: {text}" if text.strip() else "value: null", where)["value"]
        here: dict[str, Any] = result
        for depth, key in enumerate(keys):
            section = known.get(".".join(keys[:depth]))
            if section is not None and value is not None:
                _make_way(here, section, key)
            if depth + 1 == len(keys):
                break
            inner = here.get(key)
            if inner is None:
                inner = here[key] = {}
            if not isinstance(inner, dict):
                raise InputError(f"{where}: {'.'.join(keys[: depth + 1])} is {inner!r}, which has no keys")
            here = inner
        last: Any = int(keys[-1]) if keys[-1].isdigit() else keys[-1]
        here[last] = value
    return result


def _make_way(data: dict[str, Any], section: type[Section], key: str) -> None:
    """Take out of a section's data what a new value of a key leaves no place for."""
    others = section.ways if key in section.ways else ()
    for other in (*others, *section.bound.get(key, ())):
        if other != key:
            data.pop(other, None)


def _copy(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _copy(value) for key, value in data.items()}
    return [_copy(value) for value in data] if isinstance(data, list) else data


def validate(data: dict[str, Any], where: str) -> Recipe:
    """Plain data to a recipe.

    Raises:
        InputError: with the YAML path, what was found and what is allowed.
    """
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{where}: {first_problem(error)}{_allowed(error)}") from error


def _allowed(error: ValidationError) -> str:
    """For an unknown key: the keys that its section has, the closest first."""
    first = ordered_problems(error)[0]
    if first["type"] != "extra_forbidden":
        return ""
    section: type[BaseModel] | None = Recipe
    for part in first["loc"][:-1]:
        annotation: Any = section.model_fields[str(part)].annotation if section else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        section = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
    keys = list(section.model_fields) if section else []
    hint = did_you_mean(str(first["loc"][-1]), keys)
    return f"{hint} (allowed: {', '.join(keys)})"


def resolve_path(text: str | None, folder: Path) -> str | None:
    """A recipe's relative path: from the recipe's folder, or else from the working folder.

    `shipped:` begins the name of a file that comes with vitrim.

    Raises:
        InputError: no such file comes with vitrim.
    """
    if text is None or os.path.isabs(text):
        return text
    if text.startswith(SHIPPED):
        file = HERE / text[len(SHIPPED) :]
        if not file.is_file() or not file.resolve().is_relative_to(HERE.resolve()):
            raise InputError(f"{text}: no such file comes with vitrim {__version__}; give your own")
        return str(file)
    beside = folder / text
    if not beside.exists() and Path(text).exists():
        return str(Path(text).absolute())
    return str(beside.absolute())


def load_recipe(name: str, settings: Iterable[str] = ()) -> Recipe:
    """Read a recipe by file or shipped name, apply `--set` overrides, resolve its paths.

    Paths given by `--set` are taken from the working folder.

    Raises:
        InputError: unreadable, not YAML, or not a recipe; with the YAML path.
    """
    path = find_recipe(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not a text file"
        raise InputError(f"cannot read the recipe {path}: {reason.lower()}") from error
    data = _resolve_paths(parse_yaml(text, str(path)), path.parent)
    settings = list(settings)
    if settings:
        # What --set names is resolved from the working folder; what is absolute already stays.
        recipe = validate(_resolve_paths(override(data, settings), Path.cwd()), f"{path} with --set")
    else:
        recipe = validate(data, str(path))
    return recipe.within(path.parent.absolute(), path.absolute())


def _resolve_paths(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    result = _copy(data)
    for section, key in file_keys():
        holder = result.get(section)
        if isinstance(holder, dict) and isinstance(holder.get(key), str):
            holder[key] = resolve_path(holder[key], folder)
    return result


def recipe_from(data: dict[str, Any], where: str = "recipe") -> Recipe:
    """A recipe from plain data; relative paths start at the working folder."""
    return validate(_resolve_paths(data, Path.cwd()), where)
