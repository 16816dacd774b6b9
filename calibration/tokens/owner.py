"""Who judges a trial, and whether that process still lives."""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LEASE = 600.0  # seconds without a sign of a process on another machine, after which it counts as lost
UNSIGNED = 60.0  # of a trial that nobody has signed


@dataclass(frozen=True)
class Owner:
    """A process.

    Attributes:
        host: a machine since its start, and a space of process numbers on it.
        pid: there.
        started: tells it from a later process of the same number.
    """

    host: str
    pid: int
    started: str

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        return cls(_host(), os.getpid(), _started(os.getpid()) or "")

    def mark(self) -> dict[str, Any]:
        """As plain data, with the time (Unix, seconds) of this sign of life."""
        return {**asdict(self), "seen": time.time()}


def is_lost(mark: Any, begun: float | None) -> bool:
    """Whether a trial's judge is gone: here by its process, elsewhere by its last sign of life.

    Args:
        mark: of the owner; None: nobody has signed it.
        begun: when the trial was (Unix, seconds); None: not known.
    """
    now = time.time()
    if not isinstance(mark, dict):
        return begun is None or now - begun > UNSIGNED
    if mark.get("host") == _host():
        return _started(int(mark["pid"])) != mark.get("started")
    return now - float(mark.get("seen", 0.0)) > LEASE


def _host() -> str:
    parts = [platform.node()]
    for place in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        with suppress(OSError):
            link = os.path.islink(place)
            parts.append(os.readlink(place) if link else Path(place).read_text(encoding="ascii").strip())
    return " ".join(parts)


def _started(pid: int) -> str | None:
    """When a living process was started, as the system counts; empty where that is not told, None where it is dead."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return _alive(pid)
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]


def _alive(pid: int) -> str | None:
    if os.path.isdir("/proc/self"):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return ""
    return ""
