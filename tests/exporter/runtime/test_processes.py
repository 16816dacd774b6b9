"""Pools: the same results from each, whatever dies meanwhile, and nobody who works for the dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from evaluated_bundles import doubling, dying, refusing

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.exporter.runtime.processes import Processes
from vitrim.recipes.pools.pool import Pool

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_processes_give_the_same_and_tell_errors_as_they_are() -> None:
    pool: Pool = Processes(2)
    assert sorted(pool.map(doubling, [3, 1, 2, 1])) == [(1, 2), (1, 2), (2, 4), (3, 6)]
    with pytest.raises(InputError, match="^there is no work here$"):
        list(pool.map(refusing, [1, 2]))


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_item_and_no_item_is_done_twice(tmp_path: Path) -> None:
    flag = tmp_path / "left"
    flag.write_bytes(b"xx")
    found = list(Processes(2).map(partial(dying, flag), list(range(6))))
    assert sorted(found) == [(item, 2 * item) for item in range(6)]
    assert flag.stat().st_size == 0  # it died twice


@pytest.mark.slow
def test_workers_that_always_die_end_in_one_line(tmp_path: Path) -> None:
    flag = tmp_path / "left"
    flag.write_bytes(bytes(99))
    with pytest.raises(EnvironmentLackError, match="^workers died 3 times in a row: with too little memory, use fewer"):
        list(Processes(1).map(partial(dying, flag), [3]))
    assert flag.stat().st_size == 96


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from functools import partial; from pathlib import Path; from evaluated_bundles import sleeping;"
        "from vitrim.exporter.runtime.processes import Processes;"
        "list(Processes(2).map(partial(sleeping, Path(sys.argv[1])), [1, 2]))"
    )
    path = os.pathsep.join([str(ROOT / "tests"), str(ROOT.parent)])
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": path})
    assert until(lambda: len(list(tmp_path.iterdir())) == 2)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    workers = [int(one.name) for one in tmp_path.iterdir()]
    assert until(lambda: not any(alive(worker) for worker in workers))


def until(found: object, seconds: float = 30) -> bool:
    assert callable(found)
    end = time.monotonic() + seconds
    while not found():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def alive(process: int) -> bool:
    """Whether it runs; one that has ended and is not yet collected does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
