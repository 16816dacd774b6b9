"""The graph that is shipped, out of the graph that is proven: all of it but the nodes that only tell decisions.

::

    proof    image -- ... -- TopK -- Gather(x) -- ... -- logits
                               \\-- Gather(ids) -- Cast -- kept_3

    shipped  image -- ... -- TopK -- Gather(x) -- ... -- logits

Decisions cost nodes in every stage and bandwidth in every answer, and only a proof reads them.
"""

from __future__ import annotations

import time

import onnx

from ..core.layout import is_decision
from .passes.base import PassReport
from .shapes import with_shapes
from .verify import only_until

LEFT_OUT = "decision outputs left out"


def tells_decisions(model: onnx.ModelProto) -> bool:
    """Whether a graph's outputs say what its stages decided."""
    return any(is_decision(output.name) for output in model.graph.output)


def without_decisions(model: onnx.ModelProto) -> tuple[onnx.ModelProto, PassReport]:
    """The part of a graph that makes its answers: every node and weight of it is one of the graph's own.

    Args:
        model: with inferred shapes; it is not changed.
    """
    began = time.perf_counter()
    answers = [output.name for output in model.graph.output if not is_decision(output.name)]
    shipped = with_shapes(only_until(model, answers))
    count, nodes = len(model.graph.output) - len(answers), (len(model.graph.node), len(shipped.graph.node))
    return shipped, PassReport(LEFT_OUT, count, nodes=nodes, seconds=time.perf_counter() - began)
