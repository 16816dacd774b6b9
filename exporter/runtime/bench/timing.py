"""How graphs are timed. Imports nothing heavy, so that a command line may show the defaults."""

from __future__ import annotations

from dataclasses import dataclass

from ...core.bounds import THREADS, require_within

RUNS, WARMUP = (5, 100_000), (0.0, 600.0)  # what may be given


@dataclass(frozen=True)
class Timing:
    """How a benchmark times graphs.

    Attributes:
        runs: rounds in all; each times every graph once.
        warmup: least seconds of warm-up per graph.
        threads: of the CPU; None takes all cores.
        cuda_graph: launch engines as CUDA graphs; `Bench.modes` has the other way too.
        copies: time engines with the copies to and from the GPU; `Bench.modes` has the copies themselves anyway.
        energy: also measure energy per image, in separate loops.

    Raises:
        InputError: a number is out of bounds.
    """

    runs: int = 50
    warmup: float = 0.5
    threads: int | None = None
    cuda_graph: bool = False
    copies: bool = False
    energy: bool = False

    def __post_init__(self) -> None:
        require_within("runs", self.runs, *RUNS)
        require_within("warmup", self.warmup, *WARMUP)
        if self.threads is not None:
            require_within("threads", self.threads, *THREADS)
