"""How graphs are timed. Imports nothing heavy, so that a command line may show the defaults."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """How a benchmark times graphs.

    Attributes:
        runs: rounds in all; each times every graph once.
        warmup: least seconds of warm-up per graph.
        threads: onnxruntime's; None takes all cores.
        cuda_graph: launch engines as CUDA graphs; `Bench.modes` has the other way too.
        copies: time engines with the copies to and from the GPU; `Bench.modes` has the copies themselves anyway.
        energy: also measure energy per image, in separate loops.
    """

    runs: int = 50
    warmup: float = 0.5
    threads: int | None = None
    cuda_graph: bool = False
    copies: bool = False
    energy: bool = False
