"""Graphs timed in turns in several processes: where a process has its memory decides how fast it is. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...core.targets import Target
from ..processes import Processes
from .apart import measuring

TOGETHER = 1 << 30  # bytes of weights that are loaded at once


@dataclass(frozen=True)
class Samples:
    """What several processes measured.

    Attributes:
        base: milliseconds of the graph that the others are held against.
        shares: by name, the others' ratio to it, of every process.
    """

    base: float
    shares: dict[str, np.ndarray]

    def milliseconds(self, name: str) -> float:
        """Of a graph: the median over the processes."""
        return self.base * float(np.median(self.shares[name]))

    @property
    def spread(self) -> float:
        """Typical distance of the quartiles over processes, as a share of the median."""
        quartiles = [np.subtract(*np.percentile(row, [75, 25])) / np.median(row) for row in self.shares.values()]
        return float(np.median(quartiles))


def measure(
    files: Mapping[str, Path],
    base: str,
    target: Target,
    threads: int,
    processes: int,
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    engines: Path | None = None,
) -> Samples:
    """Time graphs in several processes.

    Args:
        files: by name.
        base: name of the one that is always among them, and that the others are held against.
        target: whose runtime runs them.
        threads: of the processor.
        processes: everything is loaded anew in so many.
        rounds: of each.
        progress: called with (parts done, parts).
        seed: of the first process; the next one has the next.
        sizes: bytes that each loads, where not all should be loaded at once; None: they are.
        engines: see `apart.time_here`.

    Raises:
        EnvironmentLackError: the target's runtime does not run here.
    """
    groups = list(in_groups({name: (sizes or {}).get(name, 0) for name in files}, base))
    make = partial(measuring, base, target.name, threads, rounds, None if engines is None else str(engines))
    bases: list[float] = []
    shares: dict[str, list[float]] = {name: [] for name in files}
    for done in range(processes):
        for at, group in enumerate(groups):
            part = {name: str(files[name]) for name in group}
            ((_, (found, milliseconds)),) = Processes(1).map(make, [(seed + done, part)])  # a new one each time
            bases.append(milliseconds)
            for name, share in found.items():
                if name != base or at == 0:
                    shares[name].append(share)
            progress(done * len(groups) + at + 1, processes * len(groups))
    return Samples(float(np.median(bases)), {name: np.array(row) for name, row in shares.items()})


def in_groups(sizes: Mapping[str, int], base: str, together: int = TOGETHER) -> Iterator[list[str]]:
    """Names in groups whose graphs may be loaded at once, each with `base` first and at least one other."""
    group, room = [base], together - sizes[base]
    for name in (name for name in sizes if name != base):
        if sizes[name] > room and len(group) > 1:
            yield group
            group, room = [base], together - sizes[base]
        group.append(name)
        room -= sizes[name]
    yield group
