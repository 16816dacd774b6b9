"""Graphs in fp16 or bf16: what half precision cannot hold on calibration images stays in float32."""

from __future__ import annotations

import fnmatch
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ....exporter.core.errors import InputError
from ....exporter.core.targets import Target
from ....exporter.graph.precision.guards import guard
from ....exporter.graph.precision.half import Half, to_half
from ....exporter.graph.precision.misfits import Misfits
from ....exporter.graph.precision.ranges import extents_of
from ....exporter.graph.weights import Weights
from ...listener import Listener

if TYPE_CHECKING:
    from ...schema.sections.outputs import PrecisionSection


def named_nodes(section: PrecisionSection, model: onnx.ModelProto) -> set[str]:
    """Nodes that the recipe keeps in float32.

    Raises:
        InputError: it names one that there is not.
    """
    names = [node.name for node in model.graph.node]
    found: set[str] = set()
    for pattern in section.float32:
        fitting = fnmatch.filter(names, pattern)
        if not fitting:
            raise InputError(f"precision.float32: no node of the graph is called {pattern!r}; see `vitrim inspect`")
        found |= set(fitting)
    return found


@dataclass(frozen=True)
class Job:
    """What graphs in another precision are made from and for.

    Attributes:
        section: the recipe's.
        target: where they will run.
        images: for calibration, as the graphs take them.
        threads: of onnxruntime, where graphs are run.
        listener: hears progress and what the user should know.
        weights: where the weights are that float32 graphs have beside them.
        dense: the dense model's graph in float32; None where there is none.
    """

    section: PrecisionSection
    target: Target
    images: np.ndarray
    threads: int | None
    listener: Listener
    weights: Weights | None = None
    dense: Path | None = None

    @property
    def measured(self) -> list[np.ndarray]:
        """The images that ranges are measured on."""
        return [self.images[: self.section.images]]


@dataclass(frozen=True)
class Written:
    """Graphs in another precision.

    Attributes:
        graphs: by kind.
        report: what a `PrecisionReport` says of them.
        as_half: the pruned graph with the most half precision that the runtime may compute it in; None: float32.
    """

    graphs: dict[str, onnx.ModelProto]
    report: dict[str, Any]
    as_half: onnx.ModelProto | None = None


def make_half(job: Job, models: dict[str, onnx.ModelProto], half: Half) -> Written:
    """Float32 graphs in half precision.

    Args:
        job: see there.
        models: by kind, with inferred shapes; `pruned` among them.
        half: `fp16` or `bf16`.

    Raises:
        InputError: the recipe names a node that there is not, or an activation is NaN or infinite.
        UnsupportedError: a weight is no number.
    """
    section, written, report = job.section, {}, empty_report()
    for index, (kind, model) in enumerate(models.items()):
        named = named_nodes(section, model) if kind == "pruned" else set()
        extents = extents_of(model, job.measured, job.weights)
        inner = half in job.target.inner_float32
        guarded = guard(model, extents, section.headroom, named, inner_float32=inner, weights=job.weights)
        typed = to_half(model, half, guarded.nodes, half_io=section.half_io, weights=job.weights)
        written[kind] = typed.model
        add_to(report, kind, typed.float32_nodes, guarded.found, typed.casts)
        job.listener.progress(index + 1, len(models))
    return Written(written, report, written["pruned"])


def empty_report() -> dict[str, Any]:
    """What a precision report says of half precision, by graph; see `PrecisionReport`."""
    return {"float32_nodes": {}, "overflowing": {}, "subnormal": {}, "casts": {}}


def add_to(report: dict[str, Any], kind: str, float32_nodes: Collection[str], found: Misfits, casts: int) -> None:
    """Say of one graph what stayed in float32, and why."""
    report["float32_nodes"][kind] = list(float32_nodes)
    report["overflowing"][kind], report["subnormal"][kind] = found.overflowing, found.subnormal
    report["casts"][kind] = casts


def tell_misfits(report: dict[str, Any], listener: Listener) -> None:
    """Note what stays in float32 in the pruned graph because of its numbers."""
    if "overflowing" not in report:
        return  # all around int8 products is float32
    counts = {"largest": len(report["overflowing"]["pruned"]), "smallest": len(report["subnormal"]["pruned"])}
    for end, count in counts.items():
        if count:
            nodes = "node stays" if count == 1 else "nodes stay"
            listener.note(f"{count} {nodes} in float32: values come near the {end} that fp16 holds")
