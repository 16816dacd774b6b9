"""Stages that are skipped when their inputs have not changed, and listeners that hear how far they are."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from ...exporter.core.files import explain_os_error


class Listener(Protocol):
    """Hears what a pipeline does; the CLI draws it."""

    def stage(self, name: str, cached: bool = False) -> None:
        """A stage begins, or is skipped because nothing it depends on has changed."""

    def progress(self, done: int, total: int) -> None:
        """How far the stage is."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


class Silence:
    """A listener that says nothing."""

    def stage(self, name: str, cached: bool = False) -> None:
        """Ignore."""

    def progress(self, done: int, total: int) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


def content_key(parts: Mapping[str, Any]) -> str:
    """Short hash over plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


class StageCache:
    """Finished stages of one output folder, `<stage>-<key>` each; one a stage is kept.

    A stage's folder appears by a rename when it is whole, so a killed run leaves nothing that looks finished.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, name: str, parts: Mapping[str, Any], make: Callable[[Path], None], listener: Listener) -> Path:
        """The folder of a stage, made by `make(folder)` unless it is there for the same inputs.

        Raises:
            EnvironmentLackError: the cache cannot be written.
        """
        final = self.root / f"{name}-{content_key(parts)}"
        if final.is_dir():
            listener.stage(name, cached=True)
            return final
        listener.stage(name)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=self.root))
        except OSError as error:
            raise explain_os_error(error, self.root) from error
        try:
            make(temporary)
            os.replace(temporary, final)
        except OSError as error:
            raise explain_os_error(error, final) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if not any(self.root.iterdir()):  # a first stage that failed leaves nothing behind
                self.root.rmdir()
        for old in self.root.glob(f"{name}-*"):
            if old != final:
                shutil.rmtree(old, ignore_errors=True)
        return final

    def sweep(self) -> None:
        """Remove what killed runs left half-made."""
        for path in self.root.glob(".*"):
            shutil.rmtree(path, ignore_errors=True)
