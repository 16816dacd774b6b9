"""The int8 products of a pruned graph and of its floor: pairs that are made once, in the form that a layout says."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ....exporter.core.answers import LOGITS, Task
from ....exporter.core.errors import UnsupportedError
from ....exporter.core.fidelity import fidelity
from ....exporter.graph.precision.equalize import channel_maxima, equalize, normalized_products
from ....exporter.graph.precision.nncf_pairs import nncf_restored, with_nncf
from ....exporter.graph.precision.qdq import Scheme, product_sizes, quantizable, restored, with_qdq
from ....exporter.graph.precision.ranges import Extent, extents_of, quantization_ranges
from ....exporter.graph.precision.sensitivity import Costs, Layout
from ....exporter.graph.shapes import with_shapes
from .half import Job

# Measured on two cores with AVX512-VNNI, on ViT-Ti and DeiT-S: a scale per token by the value, float32 by the product.
TOKEN_NS, FLOAT_NS = 0.37, 0.01
HARDLY_NEGATIVE = 0.25  # of the largest value, how far below zero an activation may go to count as one-sided

Logits = Callable[[onnx.ModelProto], np.ndarray]
Write = Callable[[onnx.ModelProto, Layout, Mapping[str, float]], onnx.ModelProto]


def costs_of(model: onnx.ModelProto, products: list[str]) -> dict[str, Costs]:
    """Nanoseconds that the finer forms of products take more, roughly: only their ratios are used."""
    sizes = product_sizes(model, products)
    return {
        name: Costs(TOKEN_NS * rows * (2 * inner + columns), FLOAT_NS * rows * inner * columns)
        for name, (rows, inner, columns) in sizes.items()
    }


def equalized(model: onnx.ModelProto, images: list[np.ndarray]) -> tuple[onnx.ModelProto, int]:
    """A graph with its channels evened out, and how many products that is."""
    tensors = list(normalized_products(gs.import_onnx(model)))
    even, count = equalize(model, channel_maxima(model, tensors, images)) if tensors else (model, 0)
    return with_shapes(even), count


@dataclass
class Maker:
    """Builds the graph of a layout from ranges and Q/DQ pairs that are made once.

    Attributes:
        job: see there.
        model: float32, with inferred shapes.
        products: names of those that are quantized.
        scheme: of the pairs.
        write: (graph with pairs, layout, lowest values) -> the graph in the runtime's own form.
        measured: images that ranges are measured on.
        smooth: whether NNCF's pairs are with SmoothQuant.
        lowest: by product whose activation is hardly ever negative, the lowest value.
    """

    job: Job
    model: onnx.ModelProto
    products: list[str]
    scheme: Scheme
    write: Write
    measured: list[np.ndarray]
    smooth: bool = False
    lowest: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        section = self.job.section
        self.restore = nncf_restored if section.tool == "nncf" else restored
        if section.tool == "nncf":
            self.quantized = with_nncf(self.model, self.products, self.measured, smooth=self.smooth)
            return
        if section.tool == "modelopt":
            from ....exporter.graph.precision.modelopt import with_modelopt

            self.quantized = with_modelopt(self.model, self.products, self.measured, section.calibrator)
            return
        symmetric = self.scheme == "tensorrt"
        ranges = quantization_ranges(
            self.model, self.measured, section.calibrator, percentile=section.percentile, symmetric=symmetric
        )
        self.quantized = with_qdq(self.model, ranges, self.products, self.scheme)
        reads = {node.name: node.input[0] for node in self.model.graph.node}
        for name in self.products:
            low, high = (float(np.min(value)) for value in ranges[reads[name]].range_value)
            if -low <= HARDLY_NEGATIVE * high:
                self.lowest[name] = low

    def __call__(self, layout: Layout) -> onnx.ModelProto:
        graph = self.restore(self.quantized, self.model, layout.floats) if layout.floats else self.quantized
        return self.write(graph, layout, self.lowest)

    @cached_property
    def extents(self) -> dict[str, Extent]:
        """Of the float32 graph's activations."""
        return extents_of(self.model, self.measured)


def smoother(plain: Maker, smooth: Maker, logits: Logits, reference: np.ndarray, task: Task = LOGITS) -> Maker:
    """Of NNCF's pairs without and with SmoothQuant, those whose outputs diverge less from the float32 graph's."""
    kls = [fidelity(reference, logits(make(Layout())), None, task).kl for make in (plain, smooth)]
    return smooth if kls[1] < kls[0] else plain


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
class Floor:
    """The free-slicing graph; its products correspond to the pruned graph's, see `counterparts`."""

    make: Maker
    by_pruned: dict[str, tuple[str, ...]]

    @staticmethod
    def of(pruned: Maker, model: onnx.ModelProto, products: list[str]) -> Floor:
        """The floor with pairs like the pruned graph's, of which `products` are all that can be quantized."""
        own = quantizable(model)
        by_pruned = counterparts(_columns(pruned.model, products), _columns(model, own))
        few = [pruned.job.images[:8]]
        return Floor(Maker(pruned.job, model, own, pruned.scheme, pruned.write, few, pruned.smooth), by_pruned)

    def names(self, pruned: Collection[str]) -> frozenset[str]:
        """Its products by those of the pruned graph; other nodes have no equal here."""
        return frozenset(own for name in pruned for own in self.by_pruned.get(name, ()))

    def layout(self, layout: Layout, named: Collection[str]) -> Layout:
        """Its forms; what the recipe names stays in float32 here, too."""
        return Layout(self.names(layout.token), self.names({*layout.floats, *named}))
