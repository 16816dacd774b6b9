"""Work on a cluster of Ray: its core alone (actors), and the only file that imports it.

A cluster is joined, never started unasked: Ray listens on every interface of the machine. `local` asks for one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...exporter.core.errors import EnvironmentLackError, InputError, VitrimError, excerpt
from ...exporter.runtime.processes import TRIES, Item, Result

LOCAL = "local"  # an address: start a cluster here, and end it
ADDRESS = "RAY_ADDRESS"
_STARTS = 3  # Ray gives its own processes 30 s to start, which a busy machine exceeds
# Read by the processes that Ray starts: workers at the usual priority, and time for its agents on a busy machine.
SETTINGS = {"RAY_worker_niceness": "0", "RAY_agent_register_timeout_ms": "240000"}


@dataclass(frozen=True)
class RayPool:
    """Actors of a Ray cluster, one a worker. `make`, items and results are pickled.

    The files that work reads must lie at the same paths on every node, and vitrim be installed there.

    Attributes:
        address: of a cluster; `auto`: $RAY_ADDRESS, or the one that runs on this machine; `local`: start one here.
        workers: None takes as many as the cluster has cores, or GPUs where they need one.
        cores, gpus: of each worker; parts of a GPU can be given.
        note: hears what a person should know.
    """

    address: str = "auto"
    workers: int | None = None
    cores: int = 1
    gpus: float = 0.0
    note: Callable[[str], None] = lambda text: None

    def map(self, make: Callable[[], Callable[[Item], Result]], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """See `Pool`; where a worker or its node dies, another one is asked for, with what was not done.

        Raises:
            VitrimError: what `make` or the work raised.
            EnvironmentLackError: ray is not installed, no cluster answers, or workers die again and again.
        """
        if not items:
            return
        with _joined(self.address, self.note) as ray:
            workers = min(len(items), self.workers or self._room(ray))
            yield from self._work(ray, make, items, workers)

    def _room(self, ray: Any) -> int:
        """Workers that the cluster has room for."""
        has = ray.cluster_resources()
        room = has.get("CPU", 1.0) // self.cores
        return max(1, int(min(room, has.get("GPU", 0.0) // self.gpus) if self.gpus else room))

    def _work(
        self, ray: Any, make: Callable[[], Callable[[Item], Result]], items: Sequence[Item], workers: int
    ) -> Iterator[tuple[Item, Result]]:
        # What dies is replaced here, not by Ray, which would do so for ever.
        kind = ray.remote(num_cpus=self.cores, num_gpus=self.gpus, max_restarts=0, max_task_retries=0)(_Worker)
        left, undone, tries = list(range(len(items)))[::-1], set(range(len(items))), TRIES
        at_work: dict[Any, tuple[Any, int]] = {}
        idle = [kind.remote(make) for _ in range(workers)]
        proven: set[Any] = set()
        try:
            while undone:
                while idle and (at := _next(left, undone, at_work, proven)) is not None:
                    actor = idle.pop()
                    at_work[actor.work.remote(items[at])] = (actor, at)
                for done in ray.wait(list(at_work))[0]:
                    actor, at = at_work.pop(done)
                    try:
                        result = ray.get(done)
                    except ray.exceptions.RayActorError as error:
                        left += [at] if at in undone else []
                        tries = _one_less(tries, error)
                        idle.insert(0, kind.remote(make))  # it starts while the others go on
                        continue
                    idle.append(actor)
                    if isinstance(result, VitrimError):
                        raise result
                    tries = TRIES
                    proven.add(actor)
                    if at in undone:
                        undone.remove(at)
                        yield items[at], result
        finally:
            for actor in (*idle, *(actor for actor, _ in at_work.values())):
                ray.kill(actor)


def _next(left: list[int], undone: set[int], at_work: dict[Any, tuple[Any, int]], proven: set[Any]) -> int | None:
    """What an idle actor does next: an item that nobody has, or that of an actor which has never answered.

    Such a one may wait for room in the cluster that never comes, once a node is lost. The first answer counts.
    """
    if left:
        return left.pop()
    taken = [at for _, at in at_work.values() if at in undone]
    waiting = (at for actor, at in at_work.values() if actor not in proven and taken.count(at) == 1)
    return next(waiting, None) if proven else None


def _one_less(tries: int, error: Exception) -> int:
    if tries > 1:
        return tries - 1
    reason = excerpt((str(error).strip().splitlines() or ["no reason"])[-1], 200)
    raise EnvironmentLackError(f"workers died {TRIES} times in a row ({reason}); use fewer workers") from error


class _Worker:
    """In the cluster: what does the work is made at its first item, so that errors reach the caller as they are."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        self._make = make
        self._do: Callable[[Any], Any] | None = None

    def work(self, item: Any) -> Any:
        """Its result, or the error that a person can act on."""
        try:
            if self._do is None:
                self._do = self._make()
            return self._do(item)
        except VitrimError as error:
            return error


@contextmanager
def _joined(address: str, note: Callable[[str], None]) -> Iterator[Any]:
    """Ray, connected; what the caller had connected stays so.

    Raises:
        InputError: the address is empty.
        EnvironmentLackError: ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ImportError as error:
        raise EnvironmentLackError("ray is not installed: pip install 'vitrim[ray]'") from error
    if not address:
        raise InputError("--ray has an empty address; give auto, local, or HOST:PORT")
    if ray.is_initialized():
        yield ray
        return
    (_start if address == LOCAL else _join)(ray, address, note)
    try:
        yield ray
    finally:
        ray.shutdown()


def _join(ray: Any, address: str, note: Callable[[str], None]) -> None:
    chosen = os.environ.get(ADDRESS, "auto") if address == "auto" else address
    try:
        ray.init(address=chosen, log_to_driver=False, logging_level="ERROR")
    except Exception as error:
        how = (
            f"start one (`ray start --head`), set ${ADDRESS}, give --ray HOST:PORT, or --ray {LOCAL} to start one here"
        )
        raise EnvironmentLackError(
            f"no cluster of Ray answers at {excerpt(chosen)} ({excerpt(str(error), 120)}); {how}"
        ) from error
    note(f"joined the cluster of Ray at {ray.get_runtime_context().gcs_address}")


def _start(ray: Any, address: str, note: Callable[[str], None]) -> None:
    before = {name: os.environ.get(name) for name in (*SETTINGS, ADDRESS)}
    os.environ.update(SETTINGS)
    os.environ.pop(ADDRESS, None)  # it would be joined instead
    try:
        for left in reversed(range(_STARTS)):
            try:
                ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
                break
            except Exception as error:
                ray.shutdown()
                if not left:
                    reason = excerpt(str(error), 200)
                    raise EnvironmentLackError(f"Ray did not start here {_STARTS} times: {reason}") from error
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    note("started Ray on this machine until the work is done; its ports are open on every interface")
