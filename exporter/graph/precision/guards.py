"""One guard for every half precision: what fp16 keeps in float32, bf16 and what is around int8 keep too.

A model that is exported in several precisions, or for several runtimes, then decides by the same float32 numbers in all
of them, and what was found to overflow once is nowhere left to luck.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx

from ..surgery import import_graph
from ..weights import Weights
from .float32_nodes import wide_nodes
from .half import Half
from .misfits import Misfits, misfits
from .ranges import Extent

HALVES: tuple[Half, ...] = ("fp16", "bf16")


@dataclass(frozen=True)
class Guard:
    """What stays in float32.

    Attributes:
        nodes: names of all of it.
        found: those that are there for their numbers.
    """

    nodes: set[str]
    found: Misfits


def guard(
    model: onnx.ModelProto,
    extents: Mapping[str, Extent],
    headroom: float,
    named: Collection[str] = (),
    *,
    unjudged: Collection[str] = (),
    inner_float32: bool = False,
    weights: Weights | None = None,
) -> Guard:
    """The nodes of a float32 graph that stay in it, whichever half precision the others get.

    Args:
        model: quantized or not, with inferred shapes.
        extents: of its activations, see `ranges.extents_of`.
        headroom: see `misfits.misfits`.
        named: further nodes that stay, whatever their numbers.
        unjudged: nodes whose numbers do not matter.
        inner_float32: see `Target.inner_float32`.
        weights: where the weights are that the model has beside it.
    """
    stay = wide_nodes(import_graph(model, weights), inner_float32) | set(named)
    found = Misfits()
    for half in HALVES:
        own = misfits(model, extents, half, headroom, stay | set(unjudged), weights)
        for name, value in own.overflowing.items():
            found.overflowing[name] = max(value, found.overflowing.get(name, value))
        for name, value in own.subnormal.items():
            found.subnormal[name] = min(value, found.subnormal.get(name, value))
    return Guard(stay | found.nodes, found)
