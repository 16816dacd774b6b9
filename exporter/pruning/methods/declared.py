"""What a method's class says, checked when it is made: known names, declared types, and parts that belong together."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import re
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

from ..budget import first_problem
from ..plan import Preset


def check_class(cls: Any, base: Any) -> None:
    """Refuse a method class that says something wrong, or too little.

    Args:
        cls: the new class.
        base: `Method`, whose attributes are all there are.

    Raises:
        TypeError: naming the class, where it stands, and everything that is wrong with it.
    """
    for find in (_wrong_names, _wrong_values, _missing, _unfit):
        problems = list(find(cls, base))
        if problems:
            raise TypeError(f"the method class {cls.__qualname__} in {cls.__module__}: {'; '.join(problems)}")


@functools.cache
def declared_types(base: Any) -> dict[str, Any]:
    """Types of the attributes that `base` declares, by name."""
    return {name: get_args(hint)[0] for name, hint in get_type_hints(base).items() if not name.startswith("_")}


def known_names(base: Any) -> list[str]:
    """Everything that a class may define, in the order of `base`."""
    public = [name for name in vars(base) if not name.startswith("_")]
    return list(dict.fromkeys([*declared_types(base), *public]))


def own_names(cls: Any) -> list[str]:
    """What a class defines itself, private names left out."""
    names = {**vars(cls), **inspect.get_annotations(cls)}
    return [name for name in names if not name.startswith("_")]


def _wrong_names(cls: Any, base: Any) -> Iterator[str]:
    known = known_names(base)
    for name in own_names(cls):
        if name not in known:
            close = difflib.get_close_matches(name.lower(), [other.lower() for other in known], 1)
            hint = next((other for other in known if close and other.lower() == close[0]), None)
            hint = f"; did you mean {hint}?" if hint else ""
            yield f"{name} is nothing that a method has{hint} (there are {', '.join(known)}; helpers begin with _)"
        elif isinstance(vars(base).get(name), property):
            yield f"{name} follows from the rest of the class; leave it out"


def _wrong_values(cls: Any, base: Any) -> Iterator[str]:
    types = declared_types(base)
    for name, value in ((name, vars(cls)[name]) for name in own_names(cls) if name in vars(cls)):
        standard = vars(base).get(name)
        if name in types:
            yield from _wrong_type(name, value, types[name])
        elif inspect.isfunction(standard):
            yield from _wrong_function(name, value, standard)
        elif isinstance(standard, type):
            yield from _wrong_model(name, value, standard)


def _wrong_type(where: str, value: Any, declared: Any) -> Iterator[str]:
    """Of a plain value, and of everything in a dataclass or a tuple of them."""
    try:
        TypeAdapter(declared).validate_python(value, strict=True)
    except ValidationError as error:
        yield f"{where} is {value!r}: {first_problem(error).partition(': ')[2]}"
        return
    if dataclasses.is_dataclass(value):
        for name, hint in get_type_hints(type(value)).items():
            yield from _wrong_type(f"{where}.{name}", getattr(value, name), hint)
    for index, part in enumerate(value if isinstance(value, tuple) else ()):
        if dataclasses.is_dataclass(part):
            yield from _wrong_type(f"{where}[{index}]", part, type(part))


def _wrong_function(name: str, value: Any, standard: Any) -> Iterator[str]:
    if not inspect.isfunction(value):
        yield f"{name} is {value!r}, but must be a plain function with self"
        return
    found, wanted = list(inspect.signature(value).parameters), list(inspect.signature(standard).parameters)
    if found != wanted:
        yield f"{name}({', '.join(found)}) must be {name}({', '.join(wanted)})"


def _wrong_model(name: str, value: Any, standard: type[BaseModel]) -> Iterator[str]:
    if not (isinstance(value, type) and issubclass(value, standard)):
        yield f"{name} must be a class that inherits from Method.{name}"
        return
    for key, wanted in standard.model_config.items():
        if value.model_config.get(key) != wanted:
            yield f"{name}.model_config has {key}={value.model_config.get(key)!r}; leave it {wanted!r}"
    for key, field in value.model_fields.items():
        if field.is_required():
            yield f"{name}.{key} has no default"
        if not field.description:
            yield f"{name}.{key} has no description; write Field(default=..., description='...')"


def _missing(cls: Any, base: Any) -> Iterator[str]:
    for name in declared_types(base):
        if not hasattr(cls, name):
            yield f"{name} is missing"
    if cls.select is base.select:
        yield "select is missing"


def _unfit(cls: Any, base: Any) -> Iterator[str]:
    """Parts that do not go together."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", cls.name):
        yield f"name is {cls.name!r}; take small letters, digits and _"
    if not cls.about or "\n" in cls.about:
        yield "about must be one line"
    parameters, options = cls.Parameters.model_fields, cls.StageOptions.model_fields
    if cls.by_similarity and "similar" not in options:
        yield "by_similarity is True, but StageOptions has no similar"
    if (cls.threshold is None) != (cls.statistic is base.statistic):
        yield "threshold and statistic belong together: define both or neither"
    if cls.threshold is not None and cls.threshold.option not in options:
        yield f"threshold.option is {cls.threshold.option!r}, but StageOptions has {', '.join(options) or 'nothing'}"
    if cls.threshold is not None and cls.threshold.quantile not in parameters:
        yield f"threshold.quantile is {cls.threshold.quantile!r}, but Parameters has {', '.join(parameters)}"
    if (cls.fuses is base.fuses) != (cls.fuse is base.fuse):
        yield "fuses and fuse belong together: define both or neither"
    for name in cls.searchable:
        if name not in parameters or not isinstance(parameters[name].default, float):
            yield f"searchable names {name!r}, which is no parameter that is a float"
    at = cls.placement.at
    if isinstance(at, tuple) and (not at or not all(0 <= share < 1 for share in at)):
        yield f"placement.at is {at}: give shares of the depth from 0 to below 1"
    for preset in cls.presets:
        yield from _wrong_preset(cls, preset)


def _wrong_preset(cls: Any, preset: Preset) -> Iterator[str]:
    if preset.method != cls.name:
        yield f"the preset {preset.name} is of the method {preset.method!r}"
    said = [("parameters", cls.Parameters, preset.parameters)]
    said += [(f"stages[{index}].options", cls.StageOptions, stage.options) for index, stage in enumerate(preset.stages)]
    for key, model, data in said:
        try:
            model.model_validate(dict(data))
        except ValidationError as error:
            yield f"the preset {preset.name}, {key}: {first_problem(error)}"
