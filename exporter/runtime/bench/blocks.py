"""Milliseconds by block of a graph: what the runtime itself counts, kernel by kernel. Torch-free.

onnxruntime writes a profile of every run, OpenVINO has counters of what its layers took on the mean of all runs so far;
both name kernels by the graph's nodes. Counting slows a run down, so the figures say where time goes, and a benchmark
how much there is.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...core.errors import EnvironmentLackError
from ...core.layout import Kind
from ...core.records import Record
from ...core.targets import Target
from ..openvino.runner import OpenVinoRunner
from ..runners import OrtRunner

ROUNDS = 20  # each runs every graph once
FIRST = 3  # rounds that only warm up
_KERNEL = "_kernel_time"  # ends the name of a kernel in a profile of onnxruntime's


@dataclass(frozen=True)
class BlockTimes(Record):
    """Where a graph's time goes.

    Attributes:
        parts: by part (`embedding`, `block <n>` with the stage in it, `head`) in their order, milliseconds of all its
            kernels in one run: the median over rounds by onnxruntime, the mean by OpenVINO.
        whole: milliseconds of whole runs while that was counted, which is slower than without; the median.
    """

    parts: dict[str, float]
    whole: float

    def __post_init__(self) -> None:
        if not self.parts or min(self.parts.values()) < 0 or self.whole <= 0:
            raise ValueError("has no parts, or times below 0")


@dataclass(frozen=True)
class ByBlock(Record):
    """Where the time of a benchmark's graphs goes.

    Attributes:
        counted_by: `onnxruntime` or `openvino`.
        rounds: in turns.
        graphs: by kind, see `layout.Kind`.
    """

    counted_by: Literal["onnxruntime", "openvino"]
    rounds: int
    graphs: dict[str, BlockTimes]

    def __post_init__(self) -> None:
        lacking = [kind for kind in (Kind.DENSE, Kind.PRUNED) if kind not in self.graphs]
        if lacking:
            raise ValueError(f"lacks the {lacking[0]} graph")

    @property
    def statistic(self) -> str:
        """What of the rounds it has."""
        return "medians" if self.counted_by == "onnxruntime" else "means"


@dataclass(frozen=True)
class Kernel:
    """A kernel that ran.

    Attributes:
        names: of it, and of the graph's nodes that it is made of, as far as the runtime says.
        milliseconds: that it took.
    """

    names: tuple[str, ...]
    milliseconds: float


@dataclass(frozen=True)
class Run:
    """A run of a graph, its kernels in order, and its milliseconds while that was counted."""

    kernels: tuple[Kernel, ...]
    milliseconds: float


def measure_blocks(
    graphs: Mapping[str, Path],
    blocks: Mapping[str, Mapping[str, str]],
    target: Target,
    image: Callable[[tuple[int, ...], np.dtype], np.ndarray],
    threads: int | None = None,
    rounds: int = ROUNDS,
) -> ByBlock | None:
    """Run graphs in turns, in an order drawn anew each round, and sum up what each block's kernels take.

    Args:
        graphs: by kind.
        blocks: by kind, of nodes the part that they are of; see `exporter.graph.blocks`.
        target: whose runtime runs them, on the CPU.
        image: makes a batch of a shape and type.
        threads: of the CPU; None takes all cores.
        rounds: how often each is run.

    Returns:
        None where a graph has no blocks that can be told.

    Raises:
        EnvironmentLackError: the target's runtime does not run here, or not on a CPU, where alone it is counted.
    """
    if not target.is_cpu:
        raise EnvironmentLackError(f"time by block is counted on a CPU, and {target.name} is for another device")
    if not all(blocks.get(kind) for kind in graphs):
        return None
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vitrim-")))
        by_openvino = target.runtime == "openvino"
        open_counter = _OpenVino if by_openvino else _Ort
        counters = {kind: open_counter(path, scratch / kind, threads) for kind, path in graphs.items()}
        images = {kind: image(one.runner.shape, one.runner.dtype) for kind, one in counters.items()}
        order = np.random.default_rng(0)
        for _ in range(rounds + FIRST):
            for kind in order.permutation(sorted(counters)):
                counters[kind].run(images[kind])
        found = {kind: _times(one.runs(), blocks[kind]) for kind, one in counters.items()}
    return ByBlock("openvino" if by_openvino else "onnxruntime", rounds, found)


class _Ort:
    """A graph run by onnxruntime, which writes a profile."""

    def __init__(self, graph: Path, place: Path, threads: int | None) -> None:
        self.runner = OrtRunner(graph, threads=threads, counted=place)

    def run(self, image: np.ndarray) -> None:
        self.runner(image)

    def runs(self) -> list[Run]:
        """Every run after those that warmed up."""
        events: list[dict[str, Any]] = json.loads(Path(self.runner.session.end_profiling()).read_text("utf-8"))
        return list(runs_in(events))[FIRST:]


def runs_in(events: Sequence[Mapping[str, Any]]) -> Iterator[Run]:
    """The runs in a profile of onnxruntime's, which has the kernels of a run before the run itself."""
    kernels: list[Kernel] = []
    for event in events:
        name, took = str(event.get("name", "")), float(event.get("dur", 0)) / 1000
        if event.get("cat") == "Node" and name.endswith(_KERNEL):
            kernels.append(Kernel((name[: -len(_KERNEL)],), took))
        elif event.get("cat") == "Session" and name == "model_run":
            yield Run(tuple(kernels), took)
            kernels = []


class _OpenVino:
    """A graph run by OpenVINO, whose counters are means of all runs so far."""

    def __init__(self, graph: Path, place: Path, threads: int | None) -> None:
        self.runner = OpenVinoRunner(graph, "CPU", threads, counted=True)
        # Of a layer of the compiled model, the nodes that it was made of.
        self._made_of = {
            str(layer.friendly_name): _words(layer.rt_info, "originalLayersNames")
            for layer in self.runner.compiled.get_runtime_model().get_ordered_ops()
        }
        self._took: list[float] = []
        self._warm: dict[str, float] = {}

    def run(self, image: np.ndarray) -> None:
        self.runner(image)
        self._took.append(float(self.runner.request.latency))
        if len(self._took) == FIRST:
            self._warm = self._sums()

    def runs(self) -> list[Run]:
        """All runs after those that warmed up, as one: their mean."""
        left = len(self._took) - FIRST
        kernels = [
            Kernel((*self._made_of.get(name, ()), name), max(took - self._warm.get(name, 0.0), 0.0) / left)
            for name, took in self._sums().items()
        ]
        return [Run(tuple(kernels), float(np.mean(self._took[FIRST:])))]

    def _sums(self) -> dict[str, float]:
        """By layer, milliseconds of all runs so far."""
        counted = self.runner.request.profiling_info
        return {one.node_name: 1000 * one.real_time.total_seconds() * len(self._took) for one in counted}


def _words(info: Any, key: str) -> tuple[str, ...]:
    return tuple(str(info[key].astype(str)).split(",")) if key in info else ()


def _times(runs: Sequence[Run], parts: Mapping[str, str]) -> BlockTimes:
    """Medians over runs of what each part took."""
    order = {part: at for at, part in enumerate(sorted(set(parts.values()), key=_place))}
    sums = np.zeros((len(runs), len(order)))
    for row, run in zip(sums, runs, strict=True):
        for kernel, part in zip(run.kernels, parts_of(run.kernels, parts), strict=True):
            row[order[part]] += kernel.milliseconds
    medians, whole = np.median(sums, axis=0), float(np.median([run.milliseconds for run in runs]))
    return BlockTimes({part: round(float(medians[at]), 6) for part, at in order.items()}, round(whole, 6))


def _place(part: str) -> tuple[int, int]:
    """Where a part stands in a model: the embedding, the blocks by number, the head."""
    name, _, number = part.partition(" ")
    return ("embedding", "block", "head").index(name), int(number or 0)


def parts_of(kernels: Sequence[Kernel], parts: Mapping[str, str]) -> list[str]:
    """Of kernels in the order that they ran in, the parts that they are of.

    A fused kernel has a node's name with the fusion's behind it (`node_MatMul_3/MatMulAddFusion`). What a runtime made
    of its own, such as a change of layout, is of the part before it, or at the beginning of the one behind it.

    Args:
        kernels: of one run.
        parts: by node, not empty.
    """
    known = [next((part for name in one.names if (part := _known(name, parts))), None) for one in kernels]
    last = next((part for part in known if part), next(iter(parts.values())))
    found = []
    for part in known:
        last = part or last
        found.append(last)
    return found


def _known(name: str, parts: Mapping[str, str]) -> str | None:
    """The part of a node by its name, or by what a fusion has left of it."""
    while name and name not in parts:
        name = name.rpartition("/")[0]
    return parts.get(name)
