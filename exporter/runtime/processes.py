"""Work in several processes of this machine. Torch-free."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from ..core.errors import EnvironmentLackError

Item = TypeVar("Item")
Result = TypeVar("Result")
_WAITS = sys.version_info < (3, 9)  # Python 3.8 never ends where nobody waited for its workers (bpo-39104)
TRIES = 3  # times in a row that workers may die without any item done


@dataclass(frozen=True)
class Processes:
    """Processes of their own, started anew (`spawn`), so nothing that runs here is copied into them.

    `make`, items and results are pickled. A script that uses them from Python needs `if __name__ == "__main__":`.
    """

    workers: int

    def map(self, make: Callable[[], Callable[[Item], Result]], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """See `recipes.pools.pool.Pool`; where a worker is killed, all are started anew, with what was not done."""
        left, tries = dict(enumerate(items)), TRIES
        while left:
            executor = ProcessPoolExecutor(self.workers, get_context("spawn"), _start, (make,))
            waiting: dict[Future[Any], int] = {}
            try:
                waiting.update({executor.submit(_work_on, one): at for at, one in left.items()})
                for future in as_completed(waiting):
                    result = future.result()
                    tries = TRIES
                    yield left.pop(waiting[future]), result
            except BrokenProcessPool as error:
                tries -= 1
                if not tries:
                    raise EnvironmentLackError(
                        f"workers died {TRIES} times in a row: with too little memory, use fewer workers; in a script "
                        'of your own, call it under `if __name__ == "__main__":`'
                    ) from error
            finally:
                for future in waiting:
                    future.cancel()
                # Idle workers are waited for, so that what is timed next has the machine for itself.
                executor.shutdown(wait=_WAITS or not left)


_make: Callable[[], Callable[[Any], Any]] | None = None
_work: Callable[[Any], Any] | None = None


def _start(make: Callable[[], Callable[[Any], Any]]) -> None:
    """In a worker: Ctrl-C is the parent's to handle, and a worker whose parent was killed has nobody to work for."""
    global _make, _work
    _make, _work = make, None
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work_on(item: Any) -> Any:
    """An item's result; the work is made here and not at the start, so that its errors reach the caller as they are."""
    global _work
    if _work is None:
        assert _make is not None
        _work = _make()
    return _work(item)
