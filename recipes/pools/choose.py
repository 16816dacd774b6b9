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
    def asked(self) -> int | None:
        """How many workers a result says there were; None: as many as a cluster had room for."""
        return 1 if self.in_process else self.workers

    @property
    def threads_each(self) -> int | None:
        """Threads of a worker that is told none: the cores are shared out, and it is one on a cluster; None: all."""
        if self.ray is not None:
            return 1
        return None if self.in_process else max(1, usable_cores() // (self.workers or 1))


ALONE = Crew()


def open_pool(
    crew: Crew,
    *,
    cores: int = 1,
    gpus: float = 0.0,
    note: Callable[[str], None] = lambda text: None,
) -> Pool:
    """A cluster of Ray where one is named, this process for one worker, else as many of their own.

    Args:
        crew: who does the work.
        cores, gpus: of a worker in a cluster.
        note: hears what a person should know.
    """
    if crew.ray is not None:
        return RayPool(crew.ray, crew.workers, cores, gpus, note)
    return InProcess() if crew.in_process else Processes(crew.workers or 1)
