"""A command as a call of the API: run, judged, or printed as Python."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import api
from ..exporter.core.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from ..recipes.listener import Listener


def _to_json(result: Any) -> Any:
    return result.to_json()


def as_it_is(result: Any) -> Any:
    """A result that is plain data already."""
    return result


def _pass(result: Any) -> None:
    """No result of this command is a failure."""


@dataclass(frozen=True)
class Call:
    """The call of the API that a command stands for, and what becomes of its result.

    Attributes:
        name: of the function.
        arguments: by position.
        options: by keyword; those that are the function's defaults are not printed.
        draw: prints the result for a person.
        plain: the result as plain data, for --json.
        judge: raises where the result is a failure, after it was printed.
        hidden: options that are not printed.
        tracker: that keeps the run, see `vitrim.recipes.tracking`; None: none does.
    """

    name: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]
    draw: Callable[[Any, Console], None]
    plain: Callable[[Any], Any] = _to_json
    judge: Callable[[Any], None] = _pass
    hidden: Mapping[str, Any] = field(default_factory=dict)
    tracker: str | None = None

    def python(self) -> str:
        """As a user of Python would write it."""
        defaults = {key: one.default for key, one in self._parameters().items()}
        given = [repr(_python_value(value)) for value in self.arguments]
        given += [
            f"{key}={(_by_key(value) if key == 'settings' else _python_value(value))!r}"
            for key, value in self.options.items()
            if value != defaults.get(key)
        ]
        return f"from vitrim import api\n\napi.{self.name}({', '.join(given)})"

    def run(self, listener: Listener) -> Any:
        """Call it; a function that takes a listener, or a progress, hears from this one."""
        if self.tracker is None:
            return self._run(listener)
        from ..recipes.tracking.tracker import tracked

        with tracked(self.tracker, listener) as both:
            return self._run(both)

    def _run(self, listener: Listener) -> Any:
        options, known = {**self.options, **self.hidden}, self._parameters()
        if "listener" in known:
            options["listener"] = listener
        elif "progress" in known:
            listener.stage(self.name)
            options["progress"] = listener.progress
        if "note" in known:
            options["note"] = listener.note
        return getattr(api, self.name)(*self.arguments, **options)

    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(getattr(api, self.name)).parameters


def _python_value(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_python_value(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def _by_key(settings: tuple[str, ...]) -> Any:
    """Settings such as `export.batch=8` as values by key; as they are where one cannot be read."""
    from ..recipes.schema.load import read_setting

    try:
        pairs = [read_setting(setting) for setting in settings]
    except InputError:
        return list(settings)
    found = {".".join(keys): value for keys, value in pairs}
    return found if len(found) == len(pairs) else list(settings)
