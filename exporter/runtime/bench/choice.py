"""What an export tried on this machine, and what it kept. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.records import Record, optional


@dataclass(frozen=True)
class Tried(Record):
    """One target in one precision.

    Attributes:
        target, precision: what was tried.
        agreement: share of the evaluation images with the top class of the pruned graph in float32; None: it never ran.
        median: milliseconds a batch of the pruned graph; None: it was not timed.
        speed: times as fast as the first one that was timed, the median over rounds; None: it was not timed.
        interval: of that, 95 %.
        refused: why it was not timed; None: it was.
    """

    target: str
    precision: str
    agreement: float | None = optional()
    median: float | None = optional()
    speed: float | None = optional()
    interval: tuple[float, float] | None = optional()
    refused: str | None = optional()


@dataclass(frozen=True)
class Choice(Record):
    """Everything that was tried, in order, and what was kept.

    Attributes:
        tried: see there.
        target, precision: that were kept: the fastest, and among equals the nearest to float32.
        cpu: on which it was tried.
        threads: of the runtimes.
        batch: images per inference.
    """

    tried: tuple[Tried, ...]
    target: str
    precision: str
    cpu: str
    threads: int
    batch: int
