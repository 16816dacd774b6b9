"""Which pool is asked for."""

from __future__ import annotations

import pytest

from vitrim.exporter.core.cores import usable_cores
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.runtime.processes import Processes
from vitrim.recipes.pools.by_ray import RayPool
from vitrim.recipes.pools.choose import ALONE, Crew, open_pool
from vitrim.recipes.pools.pool import InProcess


def test_a_pool_is_what_was_asked_for() -> None:
    assert open_pool(ALONE) == open_pool(Crew(1)) == InProcess()
    assert open_pool(Crew(3)) == Processes(3)
    found = open_pool(Crew(None, "auto"), cores=2, gpus=1.0)
    assert isinstance(found, RayPool)
    assert (found.address, found.workers, found.cores, found.gpus) == ("auto", None, 2, 1.0)
    assert open_pool(Crew(1, "local")) != InProcess()


def test_workers_share_the_cores_out() -> None:
    assert (ALONE.in_process, ALONE.threads_each) == (True, None)
    assert Crew(1).in_process
    assert [one.asked for one in (ALONE, Crew(3), Crew(None, "auto"), Crew(4, "auto"))] == [1, 3, None, 4]
    assert Crew(256).threads_each == 1
    assert Crew(2).threads_each == max(1, usable_cores() // 2)
    assert (Crew(None, "auto").in_process, Crew(1, "auto").threads_each) == (False, 1)
    with pytest.raises(InputError, match="workers is 0"):
        Crew(0)
