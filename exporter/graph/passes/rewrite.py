"""The passes applied to a graph, each held against the graph before it on real inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx.helper

from ...core.errors import ParityError, UnsupportedError
from ...core.targets import Precision, Target
from ..shapes import with_shapes
from ..surgery import copy_of
from ..verify import Line
from ..weights import Weights
from . import table
from .base import Context, Pass, PassReport
from .lower_opset import declared

OLDEST_OPSET = 13  # Squeeze, Unsqueeze, Split and ReduceSum take their axes and parts as inputs from here on


def rewrite(
    model: onnx.ModelProto,
    target: Target,
    feeds: Mapping[str, np.ndarray] | None = None,
    *,
    fused_attention: bool = False,
    precision: Precision = "fp32",
    pixels: bool = False,
    weights: Weights | None = None,
    left_out: Callable[[str], None] | None = None,
) -> tuple[onnx.ModelProto, list[PassReport]]:
    """Apply every pass that the target wants.

    Args:
        model: a traced model of opset 13 or later; it is not changed.
        target: where the graph will run.
        feeds: real inputs; given, every pass that changed something is held against the graph before it.
        fused_attention: use onnxruntime's fused Attention where it fits; raises the opset to 23.
        precision: that the graph will be written in afterwards.
        pixels: whether its image becomes 8-bit pixels afterwards, see `io.rewrite_ends`.
        weights: where the weights are that the model has beside it. They stay there, of the new model too; weights
            that a pass makes are in it.
        left_out: given, a pass whose result does not hold is left out, and this hears why in one line that names the
            first node that it changed; else that is an error.

    Returns:
        the new model with inferred shapes, and a report a pass.

    Raises:
        ParityError: a pass changed the outputs; it and the output are named.
        UnsupportedError: the target cannot take the graph; the node is named.
        InputError: a weight that a pass wants to know is not where the model says.
    """
    version = declared(model).version
    if version < OLDEST_OPSET:
        raise UnsupportedError(f"the graph has opset {version}; passes take {OLDEST_OPSET} and later: export it anew")
    if fused_attention and (target.runtime != "onnxruntime" or "Attention" in target.lacks):
        raise UnsupportedError(f"{target.name} gets no fused Attention; leave attention decomposed")
    line = Line(with_shapes(copy_of(model)), feeds, weights)
    context, reports = Context(target, precision, fused_attention, pixels, weights=weights), list[PassReport]()
    for each in table.PASSES:
        report = step(each, line, context, left_out)
        reports.append(report)
        context = context.after(report)
    return line.last, reports


def step(each: Pass, line: Line, context: Context, left_out: Callable[[str], None] | None = None) -> PassReport:
    """One pass on the last graph of a line, held against it.

    Raises:
        ParityError: see `rewrite`.
        UnsupportedError: see `rewrite`.
    """
    began, before = time.perf_counter(), line.last
    model, report = each.run(before, context)
    report.nodes = (len(before.graph.node), len(model.graph.node))
    if report.count:
        try:
            report.max_abs, report.near_ties = _held(each, line, model)
        except (ParityError, UnsupportedError) as error:
            if left_out is None:
                raise
            left_out(f"left out, as it does not hold here, first at {_first_change(before, model)}: {error}")
            report = PassReport(each.name, nodes=(len(before.graph.node),) * 2)
    else:
        line.last = model
    report.seconds = time.perf_counter() - began
    return report


def _held(each: Pass, line: Line, model: onnx.ModelProto) -> tuple[float | None, int]:
    """What `Line.hold` says of a pass's result."""
    try:
        model = with_shapes(model)
    except UnsupportedError as error:
        raise UnsupportedError(f"after the pass '{each.name}': {error}") from error
    return line.hold(each.name, model)


def _first_change(before: onnx.ModelProto, after: onnx.ModelProto) -> str:
    """The first node that one graph has and the other one has not, or not with these inputs."""
    kept = {_says(node) for node in after.graph.node}
    changed = next((node for node in before.graph.node if _says(node) not in kept), None)
    return "the graph's weights" if changed is None else f"node {changed.name or changed.output[0]} ({changed.op_type})"


def _says(node: onnx.NodeProto) -> str:
    """A node in words that do not depend on the order in which it was written."""
    attributes = sorted((each.name, repr(onnx.helper.get_attribute_value(each))) for each in node.attribute)
    return repr((node.op_type, list(node.input), list(node.output), attributes))
