"""All passes in order, each held against the graph before it on real inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ...core.errors import ParityError, UnsupportedError
from ...core.targets import Target
from ..shapes import with_shapes
from ..surgery import copy_of, export_graph
from ..verify import hold_against, hold_with_decisions, run_once
from . import lower_opset as opset
from .attention_scale import DIRECT_TRANSPOSE, ONE_SCALE
from .attention_to_primitives import PLAIN_ATTENTION
from .base import Context, Pass, PassReport
from .empty_pads import NO_EMPTY_PADS
from .fold_constants import fold
from .fused_attention import FUSED_ATTENTION, MEAN_BEFORE_TRANSPOSE
from .lower_operators import LOWER_CUMSUM, LOWER_GELU, LOWER_LAYER_NORM, LOWER_RMS_NORM
from .lower_qdq import OLD_QUANTIZATION
from .plain_gather import PLAIN_GATHER, PLAIN_GATHER_ND
from .prefix_in_index import PREFIX_IN_INDEX
from .qkv_split import ONE_SPLIT
from .scatter_to_matmul import SCATTER_FREE
from .static_topk import STATIC_TOPK

PASSES: tuple[Pass, ...] = (
    NO_EMPTY_PADS,
    PLAIN_ATTENTION,
    SCATTER_FREE,
    STATIC_TOPK,
    PLAIN_GATHER,
    PLAIN_GATHER_ND,
    PREFIX_IN_INDEX,
    ONE_SPLIT,
    DIRECT_TRANSPOSE,
    ONE_SCALE,
    LOWER_LAYER_NORM,
    LOWER_RMS_NORM,
    LOWER_CUMSUM,
    LOWER_GELU,
    OLD_QUANTIZATION,
    FUSED_ATTENTION,
    MEAN_BEFORE_TRANSPOSE,
)
FOLD, FOLD_AGAIN, OPSET = "constants folded", "constants folded again", "opset at most the target's"
OLDEST_OPSET = 13  # Squeeze, Unsqueeze, Split and ReduceSum take their axes and parts as inputs from here on


def rewrite(
    model: onnx.ModelProto,
    target: Target,
    feeds: Mapping[str, np.ndarray] | None = None,
    *,
    fused_attention: bool = False,
    on_pass: Callable[[PassReport], None] | None = None,
) -> tuple[onnx.ModelProto, list[PassReport]]:
    """Apply every pass that the target wants.

    Args:
        model: a traced model of opset 13 or later; it is not changed.
        target: where the graph will run.
        feeds: real inputs; given, every pass that changed something is held against the graph before it.
        fused_attention: use onnxruntime's fused Attention where it fits; raises the opset to 23.
        on_pass: called with every report as it comes.

    Returns:
        the new model with inferred shapes, and a report a pass.

    Raises:
        ParityError: a pass changed the outputs; it and the output are named.
        UnsupportedError: the target cannot take the graph; the node is named.
    """
    version = opset.declared(model).version
    if version < OLDEST_OPSET:
        raise UnsupportedError(f"the graph has opset {version}; passes take {OLDEST_OPSET} and later: export it anew")
    if fused_attention and (target.runtime != "onnxruntime" or "Attention" in target.lacks):
        raise UnsupportedError(f"{target.name} gets no fused Attention; leave attention decomposed")
    reports: list[PassReport] = []
    reference = run_once(model, feeds) if feeds else None
    current = with_shapes(copy_of(model))

    def step(name: str, change: Callable[[onnx.ModelProto], tuple[onnx.ModelProto, PassReport]]) -> None:
        nonlocal current, reference
        began, before = time.perf_counter(), len(current.graph.node)
        changed, report = change(current)
        report.nodes = (before, len(changed.graph.node))
        if report.count:
            try:
                former, current = current, with_shapes(changed)
                now = run_once(current, feeds) if feeds else None
            except UnsupportedError as error:
                raise UnsupportedError(f"after the pass '{name}': {error}") from error
            if reference is not None and now is not None and feeds:
                try:
                    report.max_abs = hold_against(name, reference, now)
                except ParityError:
                    replayed = hold_with_decisions(name, former, current, feeds)
                    if replayed is None:
                        raise
                    report.max_abs, report.near_ties = replayed
                reference = now
        report.seconds = time.perf_counter() - began
        reports.append(report)
        if on_pass:
            on_pass(report)

    def surgery(work: Callable[[gs.Graph], PassReport]) -> Callable[[onnx.ModelProto], Any]:
        def change(now: onnx.ModelProto) -> tuple[onnx.ModelProto, PassReport]:
            graph = gs.import_onnx(now)
            report = work(graph)
            return (export_graph(graph, now) if report.count else now), report

        return change

    def lowered(now: onnx.ModelProto) -> tuple[onnx.ModelProto, PassReport]:
        copied = copy_of(now)
        count = opset.lower(copied, target.opset)
        return copied, PassReport(OPSET, count + (opset.declared(now).version > target.opset))

    step(FOLD, surgery(lambda graph: PassReport(FOLD, fold(graph))))
    context = Context(target, fused_attention)
    for each in PASSES:
        wanted = each.wanted(context) and any(node.op_type in each.roots for node in current.graph.node)
        change = surgery(partial(each.run, context=context)) if wanted else partial(_nothing, each.name)
        step(each.name, change)
    step(FOLD_AGAIN, surgery(lambda graph: PassReport(FOLD_AGAIN, fold(graph))))
    _check_survivors(current, target, reports)  # before the opset, which would refuse them without the reason
    step(OPSET, lowered)
    opset.oldest_ir(current)
    return current, reports


def _nothing(name: str, model: onnx.ModelProto) -> tuple[onnx.ModelProto, PassReport]:
    return model, PassReport(name)


def _check_survivors(model: onnx.ModelProto, target: Target, reports: list[PassReport]) -> None:
    """No scatter, and no operator that the target lacks, may be left."""
    reasons = {node: why for report in reports for node, why in report.skipped}
    for node in model.graph.node:
        name = node.name or node.output[0]
        why = reasons.get(name, "no pass knows this form")
        if node.op_type.startswith("Scatter"):
            raise UnsupportedError(
                f"node {name} ({node.op_type}) cannot be written without a scatter: {why}; "
                "a scatter is wrong or missing on most TensorRT versions"
            )
        if node.op_type in target.lacks:
            raise UnsupportedError(f"node {name}: {target.name} has no {node.op_type}, and it must stay: {why}")
