"""Options that take several values, with commas between them."""

from __future__ import annotations

from typing import Any

import click


class _List(click.ParamType):
    """Words with commas between them."""

    def __init__(self, name: str, one: Any) -> None:
        self.name, self._one = name, one

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """The words, or the numbers that they are."""
        if not isinstance(value, str):
            return tuple(value)
        words = [word.strip() for word in value.split(",") if word.strip()]
        try:
            return tuple(self._one(word) for word in words)
        except ValueError:
            self.fail(f"{value!r} is no list of numbers, such as 0.5,0.65", param, ctx)


NAMES = _List("NAME,...", str)
NUMBERS = _List("NUMBER,...", float)
