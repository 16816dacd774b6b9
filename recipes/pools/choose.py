"""Which pool a command asks for."""

from __future__ import annotations

from collections.abc import Callable

from .by_ray import RayPool
from .pool import InProcess, Pool
from .processes import Processes


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
