"""Reading a recipe: safe YAML, `--set` overrides, errors with the YAML path."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ... import __version__
from ...calibration.tokens.storage import is_url
from ...exporter.core.errors import InputError, did_you_mean, excerpt
from ...exporter.core.inputs import InputKind, is_file, is_torn, read_text, require_file
from ...exporter.pruning.budget import first_problem, ordered_problems
from ...exporter.pruning.checkpoints.hub import is_hub_name
from .recipe import Recipe, named_files, sections
from .sections.section import Section

HERE = Path(__file__).parent.parent  # where the recipes lie
SHIPPED = "shipped:"  # begins the name of a file there
_LARGEST = 1 << 20
_DEEPEST = 20
_LONGEST_INTEGER = 1 << 63
_PATH = 300  # characters of a path in a message
Setting = str | tuple[str, Any]  # `a.b=c` with the value as YAML, or the path and the value itself


class RecipeLoader(yaml.SafeLoader):
    """YAML that means what it looks like: no aliases (bombs), tags, merges or repeated keys; `1e-4` is a number.

    A date, `1:30` and `010` are texts, where YAML 1.1 has 90 and 8.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases and tags before anything is built from them."""
        event = self.peek_event()
        if isinstance(event, yaml.events.AliasEvent):
            raise _at(event.start_mark, "aliases (*name) are not allowed in a recipe")
        tag = getattr(event, "tag", None)
        if tag is not None:
            shown = excerpt(tag.replace("tag:yaml.org,2002:", "!!"), 40)
            raise _at(event.start_mark, f"tags such as {shown} are not allowed in a recipe; write the value by itself")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice; YAML would silently take the last."""
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _at(key_node.start_mark, "keys must be names")
            key = self.construct_object(key_node, deep=True)
            if key == "<<" and key_node.style is None:
                raise _at(key_node.start_mark, "merges (<<) are not allowed in a recipe")
            if key in seen:
                raise _at(key_node.start_mark, f"the key {excerpt(repr(key))} stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: Any) -> int:
        """A number that a computer counts with."""
        text = self.construct_scalar(node)
        value = int(text) if len(text) < 30 else _LONGEST_INTEGER
        if abs(value) >= _LONGEST_INTEGER:
            raise _at(node.start_mark, f"{excerpt(text, 30)} is too large a number")
        return value


def _at(mark: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


_UNWANTED = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "timestamp", "merge", "value")}
RecipeLoader.yaml_implicit_resolvers = {
    key: [pair for pair in pairs if pair[0] not in _UNWANTED]
    for key, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$", re.ASCII), list("-+0123456789")
)
RecipeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?((\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(inf|Inf|INF))$|^\.(nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)
RecipeLoader.add_constructor("tag:yaml.org,2002:int", RecipeLoader.construct_yaml_int)


def shipped() -> dict[str, Path]:
    """Recipes that come with vitrim, by name: those that run as they are, then those of well-known models."""
    return {path.stem: path for path in (*sorted(HERE.glob("*.yaml")), *sorted(HERE.glob("models/*.yaml")))}


def devices() -> dict[str, Path]:
    """Devices that come with vitrim, by name: what a recipe needs to be changed in for them."""
    return {path.stem: path for path in sorted(HERE.glob("devices/*.yaml"))}


def device_settings(name: str) -> dict[str, Any]:
    """What a device changes in any recipe, as settings: values by key, such as `{"export.target": "jetpack-6"}`.

    Args:
        name: of a device that ships, or a YAML file of sections.

    Raises:
        InputError: there is neither, or it is no mapping of sections.
    """
    known = devices()
    if name not in known and not is_file(Path(name)):
        hint = did_you_mean(name, known)
        raise InputError(f"there is no device {excerpt(name)!r}{hint} (there are {', '.join(known)}; or give a file)")
    path = known.get(name, Path(name))
    data = parse_yaml(read_text(path, InputKind.RECIPE), str(path))
    for section, values in data.items():
        if not isinstance(values, dict):
            raise InputError(f"{path}: {excerpt(section)}: must be a section with keys, such as export: {{batch: 1}}")
    return {f"{section}.{key}": value for section, values in data.items() for key, value in values.items()}


def find_recipe(name: str) -> Path:
    """A recipe's file from a path or the name of one that ships.

    Raises:
        InputError: neither; close matches are given.
    """
    path = Path(name)
    if is_file(path):
        return path
    known = shipped()
    if name in known:
        return known[name]
    if os.path.isdir(path):
        raise InputError(f"{excerpt(name, _PATH)} is a folder; give the recipe's YAML file")
    if os.path.exists(path):
        require_file(path, InputKind.RECIPE)
    hint = did_you_mean(name, known)
    raise InputError(
        f"there is no recipe file {excerpt(name, _PATH)}, and none of that name ships{hint} (see `vitrim recipes`)"
    )


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """Safe YAML to plain data.

    Raises:
        InputError: with line and column.
    """
    data = _parse(text, where)
    if not isinstance(data, dict):
        raise InputError(f"{where}: must be a mapping with the keys {', '.join(Recipe.model_fields)}")
    return data


def _parse(text: str, where: str) -> Any:
    if len(text) > _LARGEST:
        raise InputError(f"{where} has {len(text)} characters; a recipe has at most {_LARGEST}")
    try:
        data = yaml.load(text, RecipeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        problem = error.problem or error.context or "not valid YAML"
        if "another document" in problem:
            problem = "a second document (---) begins; a recipe is one"
        raise InputError(f"{where}:{at} {excerpt(problem, 200)}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise InputError(f"{where}: not valid YAML: {excerpt(reason, 200)}") from error
    check_plain(data, where)
    return data


def check_plain(data: object, where: str, path: str = "", depth: int = 0) -> None:
    """Refuse what no recipe can hold, wherever it stands: deep nests, numbers past 64 bits, characters of no text.

    Raises:
        InputError: naming the key.
    """
    at = f"{where}: {excerpt(path)}" if path else where
    if depth > _DEEPEST:
        raise InputError(f"{where}: nested more than {_DEEPEST} deep")
    if isinstance(data, Mapping):
        for key, value in data.items():
            check_plain(str(key), where, path, depth)
            check_plain(value, where, f"{path}.{key}" if path else str(key), depth + 1)
    elif isinstance(data, (list, tuple)):
        for index, value in enumerate(data):
            check_plain(value, where, f"{path}[{index}]", depth + 1)
    elif isinstance(data, int) and not -_LONGEST_INTEGER <= data < _LONGEST_INTEGER:
        raise InputError(f"{at}: the number is too large")
    elif isinstance(data, str) and ("\0" in data or is_torn(data)):
        raise InputError(f"{at}: {excerpt(repr(data), 40)} holds a character that is none of a text")


def override(data: dict[str, Any], settings: Iterable[Setting]) -> dict[str, Any]:
    """Apply settings to a copy of the data: `a.b=c` with the value as YAML, or pairs of a path and a value.

    A key of which a section has exactly one, such as what says how much to prune, takes the place of the others.
    Null and false choose no way, so they leave the others alone.

    Raises:
        InputError: a setting without `=`, or a path through something that is no mapping.
    """
    result = _copy(data)
    chosen: set[str] = set()
    for setting in settings:
        path, value = read_setting(setting)
        _set(result, path, value, chosen)
        chosen.add(".".join(path))
    return result


def read_setting(setting: Setting) -> tuple[list[str], Any]:
    """The keys of a setting's path, and its value.

    Raises:
        InputError: it is none.
    """
    if isinstance(setting, tuple):
        name, value = str(setting[0]), setting[1]
    else:
        name, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set {excerpt(setting)!r}: write it as key.path=value, such as export.batch=8")
        value = _read_value(text, f"--set {excerpt(name)}")
    keys = [key.strip() for key in name.split(".")]
    if not all(keys):
        raise InputError(f"--set {excerpt(name)!r}: write it as key.path=value, such as export.batch=8")
    if len(keys) > _DEEPEST:
        raise InputError(f"--set {excerpt(name)}: nested more than {_DEEPEST} deep")
    check_plain(value, f"--set {excerpt(name)}")
    return keys, value


def _read_value(text: str, where: str) -> Any:
    """A setting's value; what is no YAML by itself, such as a comment, is refused."""
    if not text.strip():
        return None
    value = _parse(text.strip(), where)
    if "#" in text and "#" not in str(value):
        raise InputError(
            f"{where}: what follows # is a comment to YAML; quote the value: '\"{excerpt(text.strip())}\"'"
        )
    return value


def _set(data: dict[str, Any], keys: list[str], value: Any, chosen: Collection[str]) -> None:
    """Put a value at a path, and take away what it leaves no place for, but for what was chosen beside it."""
    known, here = dict(sections()), data
    chooses = value is not None and value is not False
    for depth, key in enumerate(keys):
        prefix = ".".join(keys[:depth])
        section = known.get(prefix)
        if section is not None and chooses:
            _make_way(here, section, key, prefix, chosen)
        if depth + 1 == len(keys):
            break
        inner = here.get(key)
        if inner is None:
            below = known.get(".".join(keys[:-1]))
            if value is None and below is not None and keys[-1] in below.model_fields:
                return  # nothing of a section that is not there
            inner = here[key] = {}
        if not isinstance(inner, dict):
            path = ".".join(keys)
            at = ".".join(keys[: depth + 1])
            raise InputError(f"--set {excerpt(path)}: {excerpt(at)} is {excerpt(repr(inner))}, which has no keys")
        here = inner
    last: Any = int(keys[-1]) if _INDEX.match(keys[-1]) else keys[-1]
    here[last] = value


_INDEX = re.compile(r"^(0|[1-9][0-9]{0,8})$", re.ASCII)  # a block's number in prune.keep_rates


def _make_way(
    data: dict[str, Any], section: type[Section], key: str, prefix: str = "", chosen: Collection[str] = ()
) -> None:
    """Take out of a section's data what a new value of a key leaves no place for."""
    for other in section.ways if key in section.ways else ():
        both = other in section.beside.get(key, ()) or key in section.beside.get(other, ())
        if other != key and not both:
            data.pop(other, None)
    for other in section.bound.get(key, ()):
        at = f"{prefix}.{other}"
        if not any(f"{one}.".startswith(f"{at}.") for one in chosen):
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
    check_plain(data, where)
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
    if text is None or os.path.isabs(text) or is_hub_name(text):
        return text
    if text.startswith(SHIPPED):
        file = HERE / text[len(SHIPPED) :]
        if not is_file(file) or not file.resolve().is_relative_to(HERE.resolve()):
            raise InputError(f"{text}: no such file comes with vitrim {__version__}; give your own")
        return str(file)
    beside = folder / text
    if not os.path.exists(beside) and os.path.exists(text):
        return str(Path(text).absolute())
    return str(beside.absolute())


def load_recipe(name: str, settings: Iterable[Setting] = ()) -> Recipe:
    """Read a recipe by file or shipped name, apply `--set` overrides, resolve its paths.

    Paths given by `--set` are taken from the working folder.

    Raises:
        InputError: unreadable, not YAML, or not a recipe; with the YAML path.
    """
    path = find_recipe(name)
    text = read_text(path, InputKind.RECIPE).removeprefix("\ufeff")
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
    for section, _, key in named_files(result):
        if isinstance(section[key], str):
            section[key] = resolve_path(section[key], folder)
    _resolve_storage(result, folder)
    return result


def _resolve_storage(data: dict[str, Any], folder: Path) -> None:
    """A study's file, which need not be there yet: from the folder; a database's URL stays."""
    holder: Any = data
    for part in ("prune", "search"):
        holder = holder.get(part) if isinstance(holder, dict) else None
    storage = holder.get("storage") if isinstance(holder, dict) else None
    if isinstance(storage, str) and not is_url(storage):
        holder["storage"] = os.path.abspath(folder / storage)


def recipe_from(data: dict[str, Any], where: str = "recipe") -> Recipe:
    """A recipe from plain data; relative paths start at the working folder."""
    return validate(_resolve_paths(data, Path.cwd()), where)
