"""Which pool a command asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...exporter.core.bounds import WORKERS, require_within
from ...exporter.core.cores import usable_cores
from ...exporter.runtime.processes import Processes
from .by_ray import RayPool
from .pool import InProcess, Pool


@dataclass(frozen=True)
class Crew:
    """Who does the work.

    Attributes:
        workers: processes, or actors of a cluster; None is this process, or all that the cluster has room for.
        ray: address of a cluster of Ray, see `RayPool`; None: this machine.
    """

    workers: int | None = None
    ray: str | None = None

    def __post_init__(self) -> None:
        if self.workers is not None:
            require_within("workers", self.workers, *WORKERS)

    @property
    def in_process(self) -> bool:
        """Whether this process does the work."""
        return self.ray is None and self.workers in (None, 1)

    @property
    def threads_each(self) -> int | None:
        """Threads of a worker that is told none: the cores are shared out, and it is one on a cluster; None: all."""
        if self.ray is not None:
            return 1
        return None if self.in_process else max(1, usable_cores() // (self.workers or 1))


ALONE = Crew()


def open_pool(
    workers: int | None = None,
    ray: str | None = None,
    *,
    cores: int = 1,
    gpus: float = 0.0,
    note: Callable[[str], None] = lambda text: None,
) -> Pool:
    """A cluster of Ray where one is named, this process for one worker, else as many of their own.

    Args:
        workers: None is one, or all that a cluster has room for.
        ray: address of a cluster, see `RayPool`.
        cores, gpus: of a worker in a cluster.
        note: hears what a person should know.
    """
    if ray is not None:
        return RayPool(ray, workers, cores, gpus, note)
    return InProcess() if workers in (None, 1) else Processes(workers)
