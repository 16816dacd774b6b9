"""Errors that a person can act on: what was wrong, where, and what to do next, in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


class NotFasterError(VitrimError):
    """The pruned graph is not faster than the dense one on this machine; `result` is what was made all the same."""

    exit_code = 2
    result: object = None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is not known: `; did you mean X?`, or nothing where none is close."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""
