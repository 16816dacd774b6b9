"""Which pool is asked for."""

from __future__ import annotations

from vitrim.recipes.pools.by_ray import RayPool
from vitrim.recipes.pools.choose import open_pool
from vitrim.recipes.pools.pool import InProcess
from vitrim.recipes.pools.processes import Processes


def test_a_pool_is_what_was_asked_for() -> None:
    assert open_pool() == open_pool(1) == InProcess()
    assert open_pool(3) == Processes(3)
    found = open_pool(None, "auto", cores=2, gpus=1.0)
    assert isinstance(found, RayPool)
    assert (found.address, found.workers, found.cores, found.gpus) == ("auto", None, 2, 1.0)
    assert open_pool(1, "local") != InProcess()
