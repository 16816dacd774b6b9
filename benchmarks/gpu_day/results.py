"""What a step finds, by kind; everything that a file or another process says is read as one of these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vitrim.exporter.core.layout import Kind
from vitrim.exporter.core.records import Record
from vitrim.exporter.runtime.bench.report import Bench
from vitrim.exporter.runtime.bench.stats import Distribution
from vitrim.exporter.runtime.machine.energy import Energy
from vitrim.exporter.runtime.parity import Rung

from .plan import LAUNCHES, Step


def _require(found: Mapping[str, object], *keys: str) -> None:
    missing = [key for key in keys if key not in found]
    if missing:
        raise ValueError(f"says nothing of {missing[0]}")


@dataclass(frozen=True)
class Graphs(Record):
    """Of an export.

    Attributes:
        sha256: of each graph.
        gmacs: of the pruned graph, scoring included.
        agreement: share of images with the dense model's top class.
    """

    sha256: dict[str, str]
    gmacs: float
    agreement: float

    def __post_init__(self) -> None:
        _require(self.sha256, Kind.PRUNED)


@dataclass(frozen=True)
class Engines(Record):
    """Of a build.

    Attributes:
        sha256, bytes: of each engine.
        kernels: of the pruned one; None where the builder does not say.
        fused: attentions in it that are one kernel; None likewise.
        verdict: what its layers compute in, in words.
        tensorrt: version.
    """

    sha256: dict[str, str]
    bytes: dict[str, int]
    kernels: int | None
    fused: int | None
    verdict: str
    tensorrt: str | None

    def __post_init__(self) -> None:
        _require(self.sha256, Kind.PRUNED)
        _require(self.bytes, Kind.PRUNED)


@dataclass(frozen=True)
class Held(Record):
    """Of an engine held against the golden outputs.

    Attributes:
        rung: how far off it is.
        load_seconds: until it could run; with TensorRT for RTX, its last compilation is in them.
    """

    rung: Rung
    load_seconds: float


@dataclass(frozen=True)
class InTorch(Record):
    """Of PyTorch.

    Attributes:
        distributions: latencies by how it was launched.
        energy: launched as a CUDA graph.
        version: of PyTorch.
    """

    distributions: dict[str, Distribution]
    energy: Energy
    version: str

    def __post_init__(self) -> None:
        _require(self.distributions, *LAUNCHES)


KINDS: dict[str, type[Record]] = {
    "export": Graphs,
    "build": Engines,
    "parity": Held,
    "time": Bench,
    "energy": Bench,
    "torch": InTorch,
}


def result_of(step: Step, found: Mapping[str, Any]) -> Any:
    """What a step of its kind finds.

    Raises:
        InputError: what is missing or wrong.
    """
    return KINDS[step.kind].from_json(found, step.kind)
