"""A cluster of Ray gives the same results, whatever dies; run where ray is installed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from evaluated_bundles import doubling, dying, refusing

from vitrim.exporter.core.errors import EnvironmentLackError, InputError
from vitrim.recipes.pools import by_ray
from vitrim.recipes.pools.by_ray import RayPool, _next


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EnvironmentLackError, match=r"pip install 'vitrim\[ray\]'"):
        list(RayPool().map(doubling, [1]))


def test_nothing_to_do_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert list(RayPool().map(refusing, [])) == []


class Down:
    """A ray that no cluster answers, and that does not start."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def is_initialized(self) -> bool:
        return False

    def init(self, **options: Any) -> None:
        self.asked.append({**options, "priority": by_ray.os.environ.get("RAY_worker_niceness")})
        raise ConnectionError("nobody\nhere")

    def shutdown(self) -> None:
        """Nothing runs."""


def test_a_cluster_is_joined_and_started_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Down()
    monkeypatch.setitem(sys.modules, "ray", ray)  # type: ignore[arg-type]
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(
        EnvironmentLackError, match=r"no cluster of Ray answers at head:6379 \(nobody here\); start one"
    ):
        list(RayPool().map(doubling, [1]))
    assert [one["address"] for one in ray.asked] == ["head:6379"]
    with pytest.raises(EnvironmentLackError, match="Ray did not start here 3 times: nobody here"):
        list(RayPool("local").map(doubling, [1]))
    assert [one.get("address") for one in ray.asked[1:]] == [None] * 3
    assert {one["priority"] for one in ray.asked[1:]} == {"0"}
    assert (by_ray.os.environ["RAY_ADDRESS"], "RAY_worker_niceness" in by_ray.os.environ) == ("head:6379", False)
    with pytest.raises(InputError, match="empty address"):
        list(RayPool("").map(doubling, [1]))


def test_an_idle_actor_takes_over_from_one_that_never_answered() -> None:
    at_work: dict[Any, tuple[Any, int]] = {"r1": ("old", 4), "r2": ("new", 5)}
    assert _next([1, 0], {0, 1, 4, 5}, at_work, {"old"}) == 0
    assert _next([], {4, 5}, at_work, set()) is None  # all of them have just begun
    assert _next([], {4, 5}, at_work, {"old"}) == 5
    assert _next([], {4, 5}, at_work | {"r3": ("third", 5)}, {"old"}) is None  # once is enough
    assert _next([], {4}, at_work, {"old"}) is None


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayPool]:
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'vitrim[ray]'")
    with pytest.MonkeyPatch.context() as patch:  # workers import what the tests pickle
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield RayPool()
    ray.shutdown()


@pytest.mark.slow
def test_actors_give_the_same_and_tell_errors_as_they_are(cluster: RayPool) -> None:
    assert sorted(cluster.map(doubling, [3, 1, 2, 1])) == [(1, 2), (1, 2), (2, 4), (3, 6)]
    with pytest.raises(InputError, match="^there is no work here$"):
        list(cluster.map(refusing, [1, 2]))


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_no_item(cluster: RayPool, tmp_path: Path) -> None:
    flag = tmp_path / "left"
    flag.write_bytes(b"xx")
    found = list(RayPool(workers=2).map(partial(dying, flag), list(range(6))))
    assert sorted(found) == [(item, 2 * item) for item in range(6)]
    assert flag.stat().st_size == 0


@pytest.mark.slow
def test_workers_that_always_die_end_in_one_line(cluster: RayPool, tmp_path: Path) -> None:
    flag = tmp_path / "left"
    flag.write_bytes(bytes(99))
    with pytest.raises(EnvironmentLackError, match="^workers died 3 times in a row"):
        list(RayPool(workers=1).map(partial(dying, flag), [3]))
    assert flag.stat().st_size == 96
