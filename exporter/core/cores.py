"""How many processor cores this process may use, and so how many threads a session should have."""

from __future__ import annotations

import os
from pathlib import Path

from .sysfs import read_text

ROOT = Path("/")


def usable_cores(root: Path = ROOT) -> int:
    """Cores that this process may use: its affinity, and the share of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = (read_text(root / "sys/fs/cgroup/cpu.max") or "").split()
    if len(limit) != 2:  # control groups, version 1
        quota = read_text(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us")
        limit = [quota, read_text(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us") or "100000"] if quota else []
    if len(limit) == 2 and limit[0].isdigit() and limit[1].isdigit() and int(limit[1]):
        cores = min(cores, max(1, -(-int(limit[0]) // int(limit[1]))))
    return cores


def session_threads(asked: int | None = None, root: Path = ROOT) -> int:
    """Threads of a session: what was asked for, else what OMP_NUM_THREADS says, else 0, which leaves it to the runtime.

    It would take every core of the machine. Where a container or an affinity gives this process fewer, or several
    exports run at once with OMP_NUM_THREADS, that many threads would only get in each other's way.
    """
    if asked:
        return asked
    named = os.environ.get("OMP_NUM_THREADS", "")
    if named.isdigit() and int(named):  # torch and numpy hold to it, onnxruntime does not
        return int(named)
    cores = usable_cores(root)
    return cores if cores < (os.cpu_count() or 1) else 0
