"""Graphs with int8 products: the form of every product, and what the rest of the graph computes in.

On onnxruntime's own providers the rest is float32. On TensorRT it is fp16: by the graph's types, or before opset 19 by
a flag, which lets the builder choose fp16 for every node that is not pinned. Either way the same nodes stay in float32
as in a graph that is fp16 throughout, measured on the int8 graph itself.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ...exporter.core.answers import expected_agreement
from ...exporter.core.errors import UnsupportedError
from ...exporter.graph.precision.around import fp16_around
from ...exporter.graph.precision.equalize import channel_maxima, equalize, normalized_products
from ...exporter.graph.precision.half import OLDEST_QDQ
from ...exporter.graph.precision.integer import to_integer
from ...exporter.graph.precision.qdq import product_sizes, quantizable, restored, with_dynamic, with_qdq
from ...exporter.graph.precision.ranges import quantization_ranges
from ...exporter.graph.precision.sensitivity import Costs, Found, Layout, scan
from ...exporter.graph.shapes import with_shapes
from ...exporter.runtime.choose import not_here
from ...exporter.runtime.runners import OrtRunner, run_all
from .half import Job, Written, add_to, empty_report, make_half, named_nodes
from .listener import Listener
from .trial import fastest

# Measured on two cores with AVX512-VNNI, on ViT-Ti and DeiT-S: a scale per token by the value, float32 by the product.
TOKEN_NS, FLOAT_NS = 0.37, 0.01
HARDLY_NEGATIVE = 0.25  # of the largest value, how far below zero an activation may go to count as one-sided


def make_int8(job: Job, models: dict[str, onnx.ModelProto], limit: float) -> Written:
    """Float32 graphs with int8 products: forms by the scan on the pruned graph, the floor's like it by place.

    Args:
        job: see there.
        models: `pruned`, and `floor` where there is one, with inferred shapes.
        limit: least share of images with the float32 graph's top class.

    Returns:
        the graphs; for TensorRT also the pruned one in `fp16`.

    Raises:
        InputError: the recipe names a node that there is not, or an activation is NaN or infinite.
        UnsupportedError: the floor's products do not stand for the pruned graph's, or a weight is no number.
    """
    pruned, section, target = models["pruned"], job.section, job.target
    equalized, count = _equalized(pruned, job.measured) if section.equalize else (pruned, 0)
    products, named = quantizable(equalized), named_nodes(section, pruned)
    wanted = [name for name in products if name not in named]
    make, reference = _Maker(job, equalized, wanted), _logits(job, pruned, job.images)
    found = _scanned(job, make, reference, limit)
    report = {"products": len(products), "equalized": count, "scan": found.to_dict(), "scan_images": len(job.images)}
    floor = _Floor.of(job, models["floor"], equalized, products) if "floor" in models else None
    _tell(found, len(products), job.listener)
    if target.symmetric:
        written = _fp16_around(job, make, found.layout, named, floor)
        half = make_half(job, {"pruned": pruned}, "fp16")
        for key, own in half.report.items():
            written.report[key]["fp16"] = own["pruned"]
        graphs = {**written.graphs, "fp16": half.graphs["pruned"]}
        return replace(written, graphs=graphs, report={**report, "form": "static", "forms_timed": {}, **written.report})
    graph, form, timed = _fastest_form(job, make, found.layout, reference, limit)
    graphs = {"pruned": graph}
    if floor is not None:
        graphs["floor"] = floor.in_form(form, found.layout, named)
    return Written(graphs, {**report, "form": form, "forms_timed": timed, "float32_nodes": {}})


def _scanned(job: Job, make: _Maker, reference: np.ndarray, limit: float) -> Found:
    """The cheapest forms of the products that keep the answers."""
    found = scan(
        make.products,
        lambda layout, some: _logits(job, make(layout), some),
        job.images,
        reference,
        limit,
        per_token=not job.target.symmetric,
        costs=costs_of(make.model, make.products),
        progress=job.listener.progress,
    )
    if not found.holds:
        job.listener.note(f"with every product in float32 only {found.expected:.1%} of the top classes hold")
    return found


def _fastest_form(
    job: Job, make: _Maker, layout: Layout, reference: np.ndarray, limit: float
) -> tuple[onnx.ModelProto, str, dict[str, float]]:
    """The pruned graph for onnxruntime: with the scan's forms, or with dynamic scales where those hold and win."""
    candidates = {"static": make(layout)}
    if make.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1:
        # In a batch, an image's answer would depend on the others.
        dynamic = with_dynamic(make.model, [name for name in make.products if name not in layout.floats])
        if expected_agreement(reference, _logits(job, dynamic, job.images)) >= limit:
            candidates["dynamic"] = dynamic
    choice = len(candidates) > 1 and not_here(make.model.SerializeToString(), job.target, job.threads) is None
    form, timed = fastest(candidates, job.threads) if choice else ("static", {})
    return candidates[form], form, timed


def _fp16_around(job: Job, make: _Maker, layout: Layout, named: Collection[str], floor: _Floor | None) -> Written:
    """The graphs for TensorRT."""
    by_flag, headroom = job.target.opset < OLDEST_QDQ, job.section.headroom
    found = {"pruned": fp16_around(make, layout, job.measured, headroom, named, by_flag=by_flag)}
    if floor is not None:
        own = floor.layout(layout, named)
        found["floor"] = fp16_around(floor.make, own, job.measured, headroom, floor.names(named), by_flag=by_flag)
    report = empty_report()
    for kind, around in found.items():
        add_to(report, kind, around.float32_nodes, around.found, around.casts)
    return Written({kind: around.model for kind, around in found.items()}, report, found["pruned"].as_fp16)


def costs_of(model: onnx.ModelProto, products: list[str]) -> dict[str, Costs]:
    """Nanoseconds that the finer forms of products take more, roughly: only their ratios are used."""
    sizes = product_sizes(model, products)
    return {
        name: Costs(TOKEN_NS * rows * (2 * inner + columns), FLOAT_NS * rows * inner * columns)
        for name, (rows, inner, columns) in sizes.items()
    }


def _tell(found: Found, products: int, listener: Listener) -> None:
    floats, tokens = len(found.layout.floats), len(found.layout.token)
    if floats or tokens:
        listener.note(f"int8: of {products} products {floats} stay in float32, {tokens} have a scale per token")


@dataclass
class _Maker:
    """Builds the graph of a layout from ranges and Q/DQ pairs that are made once."""

    job: Job
    model: onnx.ModelProto
    products: list[str]
    measured: list[np.ndarray] = field(default_factory=list)
    lowest: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        section, symmetric = self.job.section, self.job.target.symmetric
        pieces = self.measured or self.job.measured
        if section.tool == "modelopt":
            from ...exporter.graph.precision.modelopt import with_modelopt

            self.quantized = with_modelopt(self.model, self.products, pieces, section.calibrator)
            return
        ranges = quantization_ranges(
            self.model, pieces, section.calibrator, percentile=section.percentile, symmetric=symmetric
        )
        scheme: Any = "tensorrt" if symmetric else "onnxruntime"
        self.quantized = with_qdq(self.model, ranges, self.products, scheme)
        reads = {node.name: node.input[0] for node in self.model.graph.node}
        for name in self.products:
            low, high = (float(np.min(value)) for value in ranges[reads[name]].range_value)
            if -low <= HARDLY_NEGATIVE * high:
                self.lowest[name] = low

    def __call__(self, layout: Layout) -> onnx.ModelProto:
        graph = restored(self.quantized, self.model, layout.floats) if layout.floats else self.quantized
        return with_shapes(graph) if self.job.target.symmetric else to_integer(graph, layout.token, self.lowest)


def counterparts(columns: Mapping[str, int], floor: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """Products of the floor by those of the pruned graph, which has the same weights in the same order.

    Where one graph makes queries, keys and values at once, the other may make queries apart, for fewer tokens: then
    one product stands for two, or two for one. Columns tell, as both graphs have the same ones in all.

    Args:
        columns: of each product's weight in the pruned graph, in its order.
        floor: the same of the floor.

    Raises:
        UnsupportedError: they have other columns.
    """
    ends, own = list(accumulate(columns.values())), list(accumulate(floor.values()))
    if ends[-1:] != own[-1:]:
        raise UnsupportedError(
            f"the floor has {len(own)} products to quantize with {own[-1] if own else 0} columns, "
            f"the pruned graph {len(ends)} with {ends[-1] if ends else 0}"
        )
    shared = sorted({*ends} & {*own})
    groups: dict[int, list[str]] = {}
    for name, end in zip(floor, own, strict=True):
        groups.setdefault(bisect_left(shared, end), []).append(name)
    return {name: tuple(groups[bisect_left(shared, end)]) for name, end in zip(columns, ends, strict=True)}


def _columns(model: onnx.ModelProto, products: list[str]) -> dict[str, int]:
    return {name: columns for name, (_, _, columns) in product_sizes(model, products).items()}


@dataclass(frozen=True)
class _Floor:
    """The free-slicing graph; its products correspond to the pruned graph's, see `counterparts`."""

    make: _Maker
    by_pruned: dict[str, tuple[str, ...]]

    @staticmethod
    def of(job: Job, model: onnx.ModelProto, pruned: onnx.ModelProto, products: list[str]) -> _Floor:
        own = quantizable(model)
        by_pruned = counterparts(_columns(pruned, products), _columns(model, own))
        return _Floor(_Maker(job, model, own, [job.images[:8]]), by_pruned)

    def names(self, pruned: Collection[str]) -> frozenset[str]:
        """Its products by those of the pruned graph; other nodes have no equal here."""
        return frozenset(own for name in pruned for own in self.by_pruned.get(name, ()))

    def layout(self, layout: Layout, named: Collection[str]) -> Layout:
        """Its forms; what the recipe names stays in float32 here, too."""
        return Layout(self.names(layout.token), self.names({*layout.floats, *named}))

    def in_form(self, form: str, layout: Layout, named: Collection[str]) -> onnx.ModelProto:
        """The graph for onnxruntime."""
        own = self.layout(layout, named)
        if form == "dynamic":
            return with_dynamic(self.make.model, [name for name in self.make.products if name not in own.floats])
        return self.make(own)


def _equalized(model: onnx.ModelProto, images: list[np.ndarray]) -> tuple[onnx.ModelProto, int]:
    tensors = list(normalized_products(gs.import_onnx(model)))
    even, count = equalize(model, channel_maxima(model, tensors, images)) if tensors else (model, 0)
    return with_shapes(even), count


def _logits(job: Job, model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    runner = OrtRunner(model.SerializeToString(), threads=job.threads)
    return run_all(runner, images, runner.batch)["logits"]
