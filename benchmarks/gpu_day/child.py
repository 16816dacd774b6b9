"""A step in a process of its own: it may fail, crash, hang or say nonsense, and nothing else is the worse for it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vitrim.exporter.core.errors import InputError, VitrimError, excerpt
from vitrim.exporter.core.records import finite

LONGEST_RESULT = 1 << 22  # bytes
LONGEST_REASON = 300
_GLANCE = 0.5  # seconds between looks at whether to stop
_FAILED = "failed"  # the only key of a result that is a reason


class StepError(VitrimError):
    """A step came to nothing; the reason in one line."""


def write_result(path: Path, work: Callable[[], dict[str, Any]]) -> None:
    """In the child: do the work and write what it found, or why a person cannot have it.

    Args:
        path: of the result.
        work: the step.

    Raises:
        Exception: whatever nobody expected; the parent reads its last line in the log.
    """
    try:
        found = work()
    except VitrimError as error:
        found = {_FAILED: str(error)}
    path.write_text(json.dumps(finite(found)))


def run_child(
    command: Sequence[str],
    limit: float,
    log: Path,
    check: Callable[[dict[str, Any]], object],
    environment: Mapping[str, str] | None = None,
    stop: threading.Event | None = None,
) -> dict[str, Any]:
    """Run a command that writes its result to the file named by its last argument.

    Args:
        command: without that argument.
        limit: seconds that it may take.
        log: file for what it writes on the screen.
        check: raises InputError where a result is not what it should be.
        environment: variables beside this process's own.
        stop: ends it when it is set.

    Returns:
        the result.

    Raises:
        StepError: it failed, was killed or stopped, took too long, or its result cannot be read.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vitrim-step-") as folder:
        path = Path(folder) / "result.json"
        with open(log, "wb") as stream:
            child = subprocess.Popen(
                [*command, str(path)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # so that what it starts ends with it
            )
            try:
                code = _wait(child, limit, stop or threading.Event(), log)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if code:
            raise StepError(f"{_ended(code)}: {_last_line(log)}; see {log.name}")
        return _read(path, check)


def _wait(child: subprocess.Popen[bytes], limit: float, stop: threading.Event, log: Path) -> int:
    """Its return code."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(min(_GLANCE, limit))
        if stop.is_set():
            raise StepError("stopped")
    raise StepError(f"it took more than {limit:.0f} s; see {log.name}")


def _ended(code: int) -> str:
    """How a process ended, by its return code."""
    if code > 0:
        return f"it ended with {code}"
    name = next((each.name for each in signal.Signals if each == -code), f"signal {-code}")
    return f"it was ended by {name}"


def _last_line(log: Path) -> str:
    """The last thing that was said."""
    with open(log, "rb") as stream:
        stream.seek(max(0, log.stat().st_size - 8192))
        lines = stream.read().decode("utf-8", "replace").split("\n")
    return excerpt(next((line for line in reversed(lines) if line.strip()), "it said nothing"), LONGEST_REASON)


def _read(path: Path, check: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    try:
        with open(path, "rb") as stream:
            text = stream.read(LONGEST_RESULT + 1)
        if len(text) > LONGEST_RESULT:
            raise StepError(f"its result is larger than {LONGEST_RESULT} bytes")
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise StepError(f"its result cannot be read ({excerpt(str(error), LONGEST_REASON)})") from error
    if not isinstance(found, dict):
        raise StepError("its result is no object")
    if set(found) == {_FAILED}:
        raise StepError(excerpt(found[_FAILED], LONGEST_REASON))
    try:
        check(found)
    except InputError as error:
        raise StepError(f"its result is none: {excerpt(str(error), LONGEST_REASON)}") from error
    return found
