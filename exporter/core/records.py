"""Results as types: frozen dataclasses that JSON is made of and read into, with every key and type checked.

    @dataclass(frozen=True)
    class Ratio(Record):
        median: float
        interval: tuple[float, float]
        pairs: int

    Ratio.from_json(json.loads(text), "bench.json")

Annotations are read as text, because Python 3.8, which run_on_device.py serves, cannot evaluate `tuple[X, ...]` and
`X | None`. Known are bool, int, float, str, None, Any, records, `Literal[...]`, `tuple[X, ...]`, `tuple[X, Y]`,
`dict[str, X]`, and unions of them with `|`. Standard library only.
"""

from __future__ import annotations

import ast
import builtins
import functools
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

from .errors import InputError, excerpt
from .files import atomic_write
from .inputs import read_json

Self = TypeVar("Self", bound="Record")
_OPTIONAL = "left out of JSON where it has its default"


def optional(default: Any = None) -> Any:
    """A field that is left out of JSON where it has its default; other fields are always written."""
    return field(default=default, metadata={_OPTIONAL: True})


@dataclass(frozen=True)
class Record:
    """Base of a frozen dataclass that is written to JSON and read from it.

    `__post_init__` of a class may refuse values with a ValueError, which `from_json` turns into an InputError.

    Attributes:
        DERIVED: properties that are written as well. They are accepted when read, and computed anew.
    """

    DERIVED: ClassVar[tuple[str, ...]] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data: what is derived first, then the fields, in the order of the class."""
        found = {name: _plain(getattr(self, name)) for name in self.DERIVED}
        for one in fields(self):
            value = getattr(self, one.name)
            if not (one.metadata.get(_OPTIONAL) and value == one.default):
                found[one.name] = _plain(value)
        return found

    @classmethod
    def from_json(cls: type[Self], data: object, where: str) -> Self:
        """The record that `to_json` wrote.

        Args:
            data: plain data, as `json.loads` returns it.
            where: the file, for messages.

        Raises:
            InputError: a key is unknown or missing, or a value has another type; one line with the path of the key,
                what was found and what is allowed.
        """
        try:
            read: Self = _read_record(cls, data, "")
        except _RefusedError as refused:
            raise InputError(f"{where}{': ' if refused.path else ' '}{excerpt(str(refused), 400)}") from refused
        return read

    @classmethod
    def read(cls: type[Self], path: str | os.PathLike[str], kind: str, maker: str = "vitrim export") -> Self:
        """The record of a JSON file.

        Args:
            path: the file.
            kind: what it holds, for messages.
            maker: the command that writes such files, for messages.

        Raises:
            InputError: the file cannot be read, is not JSON, or holds something else; see `from_json`.
        """
        return cls.from_json(read_json(path, kind, maker), os.fspath(path))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, whole or not at all.

        Raises:
            EnvironmentLackError: the place cannot be written.
        """
        atomic_write(path, json.dumps(finite(self.to_json()), indent=2) + "\n")


def finite(data: Any) -> Any:
    """Plain data with null for numbers that JSON cannot hold: infinity, and what is none."""
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


class _RefusedError(Exception):
    """A value that does not fit; `path` is that of its key, such as `rungs[2].name`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} {reason}" if path else reason)
        self.path = path


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


@dataclass(frozen=True)
class _Type:
    """What an annotation means.

    Attributes:
        words: for a person, such as `a number`.
        fits: whether plain data is of this kind, at a glance.
        read: (plain data that fits, path of its key) -> the value; raises _RefusedError.
        record: the class, of a record.
    """

    words: str
    fits: Callable[[Any], bool]
    read: Callable[[Any, str], Any]
    record: type[Record] | None = None


def _read(wanted: _Type, value: Any, path: str) -> Any:
    if not wanted.fits(value):
        raise _RefusedError(path, f"is {_shown(value)}, but must be {wanted.words}")
    return wanted.read(value, path)


def _read_record(cls: type[Self], data: Any, path: str) -> Self:
    if not isinstance(data, Mapping):
        raise _RefusedError(path, f"is {_shown(data)}, but must be an object")
    hashable: Any = cls  # as every class is
    known, dot = _types_of(hashable), f"{path}." if path else ""
    unknown = [excerpt(str(key)) for key in data if key not in known and key not in cls.DERIVED]
    if unknown:
        raise _RefusedError(dot + unknown[0], f"is unknown (known are {', '.join(known)})")
    missing = [one.name for one in fields(cls) if _is_needed(one) and one.name not in data]
    if missing:
        raise _RefusedError(dot + missing[0], f"is missing; it must be {known[missing[0]].words}")
    values = {key: _read(wanted, data[key], dot + key) for key, wanted in known.items() if key in data}
    try:
        return cls(**values)
    except ValueError as error:
        raise _RefusedError(path, str(error)) from error


def _is_needed(one: Field[Any]) -> bool:
    return one.default is MISSING and one.default_factory is MISSING


def _shown(value: Any) -> str:
    """Plain data for a message: short, on one line."""
    if isinstance(value, (Mapping, list, tuple)):
        return "an object" if isinstance(value, Mapping) else "a list"
    try:
        return excerpt(json.dumps(value, default=str), 60)
    except ValueError:  # more digits than Python writes
        return "a very long number"


@functools.cache
def _types_of(cls: Any) -> dict[str, _Type]:
    """By field, what its annotation means; names in it are those of the module that the class stands in.

    Raises:
        TypeError: an annotation is none that records know.
    """
    names, known = vars(sys.modules[cls.__module__]), {}
    for one in fields(cls):
        try:
            known[one.name] = _type_of(ast.parse(str(one.type), mode="eval").body, names)
        except (TypeError, SyntaxError) as error:
            where = f"{cls.__name__}.{one.name}: {one.type}"
            raise TypeError(f"{where} is no annotation that records can read: {error}") from error
    return known


def _type_of(node: Any, names: Mapping[str, Any]) -> _Type:
    """What an annotation means, from its syntax tree."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([_type_of(side, names) for side in (node.left, node.right)])
    if not isinstance(node, ast.Subscript):
        return _named(_resolve(node, names))
    base: Any = _resolve(node.value, names)
    inner: Any = node.slice
    if type(inner).__name__ == "Index":  # Python 3.8
        inner = inner.value
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if base is Literal:
        return _literal([ast.literal_eval(part) for part in parts])
    if base is dict and len(parts) == 2 and _resolve(parts[0], names) is str:
        return _dict(_type_of(parts[1], names))
    if base is tuple and len(parts) == 2 and isinstance(parts[1], ast.Constant) and parts[1].value is Ellipsis:
        return _list(_type_of(parts[0], names))
    if base is tuple:
        return _row([_type_of(part, names) for part in parts])
    raise TypeError("of generics there are tuple[X, ...], tuple[X, Y], dict[str, X] and Literal")


def _resolve(node: Any, names: Mapping[str, Any]) -> Any:
    """What a name of an annotation stands for."""
    if isinstance(node, ast.Attribute):
        return getattr(_resolve(node.value, names), node.attr)
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.Name) and hasattr(builtins, node.id):
        return getattr(builtins, node.id)
    raise TypeError(f"{getattr(node, 'id', 'it')} is not in the class's module when it runs")


def _named(found: Any) -> _Type:
    if isinstance(found, type) and issubclass(found, Record):
        return _Type("an object", _is_object, partial(_read_record, found), found)
    if get_origin(found) is Literal:
        return _literal(get_args(found))
    for plain, known in _PLAIN:
        if found is plain:
            return known
    raise TypeError(f"{found!r} is none of their types")


def _is_number(value: Any, kinds: Any) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def _float(value: Any, path: str) -> float:
    try:
        number = float(value)
    except OverflowError as error:
        raise _RefusedError(path, f"is {_shown(value)}, which is too large for a number") from error
    if not math.isfinite(number):
        raise _RefusedError(path, f"is {_shown(value)}, but must be a number")
    return number


_PLAIN: tuple[tuple[Any, _Type], ...] = (
    (Any, _Type("anything", lambda value: True, lambda value, path: value)),
    (None, _Type("null", lambda value: value is None, lambda value, path: None)),
    (bool, _Type("true or false", lambda value: isinstance(value, bool), lambda value, path: value)),
    (str, _Type("text", lambda value: isinstance(value, str), lambda value, path: value)),
    (int, _Type("a whole number", lambda value: _is_number(value, int), lambda value, path: value)),
    (float, _Type("a number", lambda value: _is_number(value, (int, float)), _float)),
)


def _union(members: Sequence[_Type]) -> _Type:
    """Of several records the first whose needed keys are all there; else the first, which says what is missing."""

    def complete(member: _Type, value: Any) -> bool:
        return member.record is None or all(one.name in value for one in fields(member.record) if _is_needed(one))

    def read(value: Any, path: str) -> Any:
        fitting = [member for member in members if member.fits(value)]
        return next((one for one in fitting if complete(one, value)), fitting[0]).read(value, path)

    words = " or ".join(dict.fromkeys(member.words for member in members))
    return _Type(words, lambda value: any(member.fits(value) for member in members), read)


def _literal(values: Sequence[Any]) -> _Type:
    known = ", ".join(str(value) for value in values)

    def read(value: Any, path: str) -> Any:
        if value not in values:
            raise _RefusedError(path, f"is {_shown(value)}, which this vitrim does not know (it knows {known})")
        return value

    return _Type(f"one of {known}", lambda value: isinstance(value, tuple({type(one) for one in values})), read)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping)


def _list(member: _Type) -> _Type:
    def read(values: Any, path: str) -> Any:
        return tuple(_read(member, value, f"{path}[{index}]") for index, value in enumerate(values))

    return _Type("a list", _is_list, read)


def _row(members: Sequence[_Type]) -> _Type:
    def read(values: Any, path: str) -> Any:
        if len(values) != len(members):
            raise _RefusedError(path, f"has {len(values)} entries, but must have {len(members)}")
        return tuple(
            _read(one, value, f"{path}[{at}]") for at, (one, value) in enumerate(zip(members, values, strict=True))
        )

    return _Type(f"a list of {len(members)}", _is_list, read)


def _dict(member: _Type) -> _Type:
    def read(values: Any, path: str) -> Any:
        strange = [key for key in values if not isinstance(key, str)]
        if strange:
            raise _RefusedError(path, f"has the key {_shown(strange[0])}, but keys must be text")
        return {key: _read(member, value, f"{path}.{key}") for key, value in values.items()}

    return _Type("an object", _is_object, read)
