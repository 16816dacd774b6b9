"""Ask a runtime's own parser and builder for their verdict on graphs, in a process that may die of one. Torch-free."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO

from ..core.errors import EnvironmentLackError, InputError
from ..core.targets import TARGETS, Target
from .openvino.runner import title
from .tensorrt.family import family_of
from .tensorrt.versions import import_tensorrt
from .verdict import Answer

SECONDS = 600.0  # that one graph may take
_PACKAGE = "vitrim.exporter.runtime"


@dataclass(frozen=True)
class Askable:
    """A parser and builder that say here and now what they take.

    Attributes:
        title: whose they are, with the version.
        code: Python that serves requests, see `verdict`.
    """

    title: str
    code: str


def askable(target: Target) -> Askable:
    """What can be asked about graphs for a target.

    Raises:
        InputError: nothing can be: its builder needs the device, or there is no builder.
        EnvironmentLackError: it is not installed; says how to get it.
    """
    if target.runtime == "openvino" and target.device == "CPU":
        return Askable(title(), f"from {_PACKAGE}.openvino.answer import serve; serve()")
    family = family_of(target)
    if target.runtime == "tensorrt" and family.builds_anywhere:
        whose = family.versioned(import_tensorrt(family))
        return Askable(whose, f"from {_PACKAGE}.tensorrt.answer import serve; serve({family.name!r})")
    names = [each.name for each in TARGETS.values() if each.rtx is not None or each.device == "CPU"]
    raise InputError(f"{target.name} cannot be asked, only {' and '.join(names)}: their builders run on any machine")


class Asker:
    """Parser and builder of a target, in a process of their own; a context manager.

    One process answers many graphs; after one that it died of, or that took too long, the next graph gets a new one.

    Args:
        target: whose they are.
        seconds: that one graph may take.

    Raises:
        InputError, EnvironmentLackError: see `askable`.
    """

    def __init__(self, target: Target, seconds: float = SECONDS) -> None:
        self._asked, self.seconds = askable(target), seconds
        self.title = self._asked.title
        self._child: _Child | None = None

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._child is not None:
            self._child.kill()

    def ask(self, model: bytes, place: str | os.PathLike[str] = "") -> Answer:
        """What they say of a graph. Nothing is written.

        Args:
            model: serialized; its large weights may be in files.
            place: the file that it is of, beside which those lie.

        Returns:
            the answer; `ended` says it where the process died, or was ended after `seconds`.

        Raises:
            EnvironmentLackError: the process cannot do its work at all.
        """
        child = self._child = self._child or _Child(self._asked)
        request = json.dumps({"size": len(model), "place": os.fspath(place)}).encode() + b"\n"
        child.send(request + model)
        late = False
        try:
            line = child.lines.get(timeout=self.seconds)
        except queue.Empty:
            line, late = b"", True
        if line:
            return Answer.from_json(json.loads(line), self.title)
        self._child = None
        ended = f"it came to no end within {self.seconds:g} s" if late else child.last_words()
        child.kill()
        return Answer(self.title, ended=ended, late=late)


class _Child:
    """The process, and threads that hear it: it can neither block on a full pipe nor keep us waiting."""

    def __init__(self, asked: Askable) -> None:
        self._title, pipe = asked.title, subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, "-c", asked.code], stdin=pipe, stdout=pipe, stderr=pipe)
        self.lines: queue.Queue[bytes] = queue.Queue()
        self._said: deque[bytes] = deque(maxlen=20)
        self._ears = [
            threading.Thread(target=self._hear, args=(self.process.stdout, self.lines.put), daemon=True),
            threading.Thread(target=self._hear, args=(self.process.stderr, self._said.append), daemon=True),
        ]
        for ear in self._ears:
            ear.start()

    def _hear(self, stream: BinaryIO, take: Callable[[bytes], None]) -> None:
        for line in stream:
            take(line)
        if stream is self.process.stdout:
            self.lines.put(b"")  # it has ended

    def send(self, data: bytes) -> None:
        """Write to it; a death is told by what it does not answer."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(data)
            self.process.stdin.flush()

    def last_words(self) -> str:
        """How it ended.

        Raises:
            EnvironmentLackError: Python itself ended it, so that it can answer nothing.
        """
        code = self.process.wait()
        if code > 0:
            self.kill()
            said = self._said[-1].decode(errors="replace").strip() if self._said else f"code {code}"
            raise EnvironmentLackError(f"the process that asks {self._title} fails ({said[:200]}); see vitrim doctor")
        return f"its process died of it (signal {-code})"

    def kill(self) -> None:
        """End it, and hear what it said."""
        self.process.kill()
        self.process.wait()
        for ear in self._ears:
            ear.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was not sent yet has nobody to go to
                    stream.close()
