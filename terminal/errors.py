"""An error at the end of a command: one line for a person, JSON for a program, and the exit status."""

from __future__ import annotations

import contextlib
import os
import traceback

import click

from ..exporter.core.errors import VitrimError, excerpt
from ..exporter.core.files import explain_stray_error
from .screens.console import print_json

_LONGEST = 2000  # characters of a message
_INTERRUPTED = 130
TRACEBACK = "VITRIM_TRACEBACK"  # in the environment: raise what vitrim did not foresee


def report(error: BaseException, as_json: bool = False) -> int:
    """Say on standard error what ended a command.

    Args:
        error: what was raised.
        as_json: say it on standard output too, as `{"error": {"message": ..., "kind": ..., "status": ...}}`.

    Returns:
        the exit status.
    """
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):  # click 8.1 has none
        click.echo(error.format_message(), err=True)  # type: ignore[attr-defined]
        return VitrimError.exit_code
    kind, text, status = explain(error)
    message = excerpt(text, _LONGEST)
    with contextlib.suppress(OSError):  # where the streams themselves fail, the status says it
        click.echo(f"vitrim: {message}", err=True)
        if as_json:
            print_json({"error": {"message": message, "kind": kind, "status": status}})
    return status


def explain(error: BaseException) -> tuple[str, str, int]:
    """An error's kind, what a person reads of it, and the exit status."""
    status = VitrimError.exit_code
    if isinstance(error, VitrimError):
        return type(error).__name__, str(error), error.exit_code
    if isinstance(error, click.ClickException):
        return "UsageError", _usage(error), status
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        return "Interrupted", "interrupted; nothing was published", _INTERRUPTED
    if isinstance(error, OSError):
        found = explain_stray_error(error)
        return type(found).__name__, str(found), status
    if isinstance(error, MemoryError):
        return "OutOfMemory", "out of memory; take a smaller batch or model", status
    if os.environ.get(TRACEBACK):
        raise error
    at = traceback.extract_tb(error.__traceback__)[-1:]
    where = "".join(f" in {os.path.basename(frame.filename)}, line {frame.lineno}" for frame in at)
    return (
        "InternalError",
        f"a fault of vitrim's own: {type(error).__name__}{where}: {excerpt(str(error), 200)}; please report it, with "
        f"what the same command prints after {TRACEBACK}=1",
        status,
    )


def _usage(error: click.ClickException) -> str:
    """What click says of a command line, in one line, with where to read more."""
    said = error.format_message().rstrip(".")
    if not isinstance(error, click.UsageError) or error.ctx is None:
        return said
    path = error.ctx.command_path
    return f"{path.partition(' ')[2]}: {said}; see `{path} --help`".removeprefix(": ")
