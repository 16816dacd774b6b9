"""Errors that a person can act on: what was wrong, where, and what to do next, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST_NAME = 200  # that is looked for among known ones


class VitrimError(Exception):
    """Base of every error that ends a command with one line instead of a traceback."""

    exit_code = 3


class InputError(VitrimError):
    """A file, key or option that the user gave cannot be used."""


class UnsupportedError(VitrimError):
    """A model, operator or target that vitrim does not take; the message says what it does take."""


class EnvironmentLackError(VitrimError):
    """This machine lacks something (package, GPU, TensorRT, disk); the message says how to get it."""


class ParityError(VitrimError):
    """Two runners disagree past the tolerance, or decide differently without a near-tie."""

    exit_code = 1


class RequirementError(VitrimError):
    """What a recipe requires of a bundle does not hold; nothing was published."""

    exit_code = 1


class NotFasterError(VitrimError):
    """The pruned graph is not faster than the dense one on this machine; `result` is what was made all the same."""

    exit_code = 2
    result: object = None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is not known: `; did you mean X?`, or nothing where none is close."""
    close = difflib.get_close_matches(name, list(known), 1) if len(name) <= _LONGEST_NAME else []
    return f"; did you mean {close[0]}?" if close else ""


def visible(text: str) -> str:
    """A text in one line that does nothing to a terminal: control characters are spelled out, such as `\\x1b`.

    So are characters that reverse or hide their neighbours, and halves of characters. Breaks and tabs are blanks.
    """
    if text.isprintable():
        return text
    words = " ".join(text.split()) if any(char.isspace() and char != " " for char in text) else text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in words)


def excerpt(text: object, most: int = 80) -> str:
    """The beginning of what a user gave, to be echoed in a message: in one line, without control characters.

    Args:
        text: any value; what is no text is written as Python writes it.
        most: characters; what is longer ends in `...`.
    """
    try:
        found = text if isinstance(text, str) else repr(text)
    except (ValueError, RecursionError):  # Python writes no number of 5,000 digits
        found = f"a large {type(text).__name__}"
    shown = visible(found[: 2 * most])
    return shown if len(shown) <= most and len(found) <= 2 * most else shown[: most - 3] + "..."
