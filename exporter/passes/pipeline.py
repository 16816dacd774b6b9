"""All passes in order, each held against the graph before it on real inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ..errors import ParityError, UnsupportedError
from ..targets import Target
from . import opset
from .attention import FUSED_ATTENTION
from .base import Context, Pass, PassReport
from .gather import PLAIN_GATHER
from .lower import LOWER_GELU, LOWER_LAYER_NORM
from .merge import SCATTER_FREE
from .prefix import PREFIX_IN_INDEX
from .scale import DIRECT_TRANSPOSE, ONE_SCALE
from .split import ONE_SPLIT
from .topk import STATIC_TOPK

PASSES: tuple[Pass, ...] = (
    SCATTER_FREE,
    STATIC_TOPK,
    PLAIN_GATHER,
    PREFIX_IN_INDEX,
    ONE_SPLIT,
    DIRECT_TRANSPOSE,
    ONE_SCALE,
    LOWER_LAYER_NORM,
    LOWER_GELU,
    FUSED_ATTENTION,
)
FUSED_OPSET = 23
_RELATIVE = 2e-5  # a pass changes the order of a few float32 operations, nothing more


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every value's shape inferred anew.

    Raises:
        UnsupportedError: the shapes contradict each other.
    """
    del model.graph.value_info[:]
    try:
        return onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())[:300]
        raise UnsupportedError(f"the graph's shapes do not fit together: {reason}") from error


def import_graph(model: onnx.ModelProto) -> gs.Graph:
    """A graph-surgeon graph with shapes."""
    return gs.import_onnx(with_shapes(model))


def export_graph(graph: gs.Graph, like: onnx.ModelProto) -> onnx.ModelProto:
    """Back to ONNX, with the metadata, opset and IR version of the model it came from."""
    model = gs.export_onnx(graph, do_type_check=False)
    model.ir_version = like.ir_version
    del model.opset_import[:]
    model.opset_import.extend(like.opset_import)
    del model.metadata_props[:]
    model.metadata_props.extend(like.metadata_props)
    return model


def fold(model: onnx.ModelProto) -> tuple[onnx.ModelProto, PassReport]:
    """Fold constants and remove dead nodes."""
    graph = import_graph(model)
    before = len(graph.nodes)
    graph.fold_constants().cleanup().toposort()
    report = PassReport("constants folded", before - len(graph.nodes), nodes=(before, len(graph.nodes)))
    return export_graph(graph, model), report


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
        model: a traced model; it is not changed.
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
    context = Context(target, fused_attention)
    reports: list[PassReport] = []
    reference = run_once(model, feeds) if feeds else None

    def note(report: PassReport, now: onnx.ModelProto, began: float) -> None:
        if reference is not None and feeds and report.count:
            report.max_abs = hold_against(report.name, reference, run_once(now, feeds))
        report.seconds = time.perf_counter() - began
        reports.append(report)
        if on_pass:
            on_pass(report)

    began = time.perf_counter()
    current, report = fold(model)
    note(report, current, began)
    for step in PASSES:
        began = time.perf_counter()
        graph = import_graph(current)
        before = len(graph.nodes)
        report = step.run(graph, context)
        report.nodes = (before, len(graph.nodes))
        if report.count:
            current = export_graph(graph, current)
            if step is FUSED_ATTENTION:
                opset.raise_to(current, FUSED_OPSET)
        note(report, current, began)
    began = time.perf_counter()
    count = opset.lower(current, target.opset)
    note(
        PassReport(f"opset at most {target.opset}", count, nodes=(len(current.graph.node),) * 2),
        current,
        began,
    )
    survivors = [node for node in current.graph.node if node.op_type.startswith("Scatter")]
    if survivors:
        reason = next((why for r in reports if r.name == SCATTER_FREE.name for _, why in r.skipped), "unknown form")
        raise UnsupportedError(
            f"node {survivors[0].name} ({survivors[0].op_type}) cannot be written without a scatter: {reason}; "
            "a scatter is wrong or missing on most TensorRT versions"
        )
    return with_shapes(current), reports


def run_once(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs by name from onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def hold_against(name: str, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> float:
    """Largest absolute error over float outputs; integer outputs must be equal.

    Raises:
        ParityError: naming the pass, the output and the error.
    """
    worst = 0.0
    for output, old in before.items():
        new = after.get(output)
        if new is None or new.shape != old.shape or new.dtype != old.dtype:
            raise ParityError(f"pass '{name}' changed the output {output}: its shape, type or name differ")
        if old.dtype.kind != "f":
            if not np.array_equal(np.sort(old, -1), np.sort(new, -1)):
                raise ParityError(f"pass '{name}' changed the decisions in {output}")
            continue
        error = float(np.abs(old.astype(np.float64) - new).max(initial=0))
        limit = _RELATIVE * max(1.0, float(np.abs(old).max(initial=0)))
        if not error <= limit:
            raise ParityError(f"pass '{name}' changed the output {output} by {error:.3g}, more than {limit:.3g}")
        worst = max(worst, error)
    return worst
