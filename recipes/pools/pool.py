"""Where work is done: in this process, in several, or on several machines. Only the order depends on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...exporter.runtime.processes import Item, Result


class Pool(Protocol):
    """A place to work."""

    def map(self, make: Callable[[], Callable[[Item], Result]], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """Work on every item once, or again where a worker died over it.

        Args:
            make: called once in every worker that has work; what it returns is called with items.
            items: to be worked on.

        Yields:
            an item and its result, in the order in which they are done.

        Raises:
            VitrimError: what `make` or the work raised.
            EnvironmentLackError: workers die again and again.
        """


@dataclass(frozen=True)
class InProcess:
    """No worker but this process."""

    def map(self, make: Callable[[], Callable[[Item], Result]], items: Sequence[Item]) -> Iterator[tuple[Item, Result]]:
        """See `Pool`; in order."""
        work = make() if items else None
        for item in items:
            assert work is not None
            yield item, work(item)
