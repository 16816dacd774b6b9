"""Will this target take this graph, and compute it rightly? Works on any ONNX file, not only vitrim's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import onnx
import onnx.inliner
import onnx.shape_inference
from onnx import TensorProto

from ...core.errors import UnsupportedError, excerpt
from ...core.operators import INTEGER_OPERATORS
from ...core.targets import Target
from ..apart import ApartError, run_apart
from ..shapes import without_weights
from .facts import DEFAULT_DOMAINS, Finding, Known, all_nodes, attribute, damage, has_data, integer, name_of, opset_of
from .static import shape_values
from .types import check_model_types, check_types, double

Change = Callable[[onnx.ModelProto], onnx.ModelProto]
_SIZE = "its size depends on data"
_BRANCH = "the graph is not straight-line"
_SHAPES = "a static graph computes no shapes"
# Operators whose result size, or whose execution, depends on data.
_DYNAMIC = {
    "Compress": _SIZE,
    "NonMaxSuppression": _SIZE,
    "NonZero": _SIZE,
    "Unique": _SIZE,
    "If": _BRANCH,
    "Loop": _BRANCH,
    "Scan": _BRANCH,
    "SequenceMap": _BRANCH,
    "Range": "its size is computed",
    "Shape": _SHAPES,
    "Size": _SHAPES,
    "SequenceConstruct": "sequences are no tensors",
}
# The inputs that decide a result's size: they must be constant.
_SIZES = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1,),
    "Reshape": (1,),
    "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Unsqueeze": (1,),
}
_INTEGERS = {"INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"}
_ONE_OUTPUT = {"BatchNormalization", "LayerNormalization", "MaxPool"}  # onnx-tensorrt's docs/operators.md
_TRACE = "trace with fixed shapes, or fold it"
_QDQ = "quantize with QuantizeLinear and DequantizeLinear instead"


def operator_table(model: onnx.ModelProto) -> dict[str, int]:
    """Nodes by operator, most frequent first; those of branches and loops too."""
    return dict(Counter(node.op_type for node in all_nodes(model.graph)).most_common())


def compare_tables(before: Mapping[str, int], after: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """(operator, count before, count after) of two operator tables, the largest change first, then by name."""
    rows = [(op, before.get(op, 0), after.get(op, 0)) for op in {*before, *after}]
    return sorted(rows, key=lambda row: (-abs(row[2] - row[1]), row[0]))


def lint(model: onnx.ModelProto, target: Target, *, foreign: bool = False) -> list[Finding]:
    """Everything that stands between a graph and a target.

    Args:
        model: any model; its functions are inlined and its shapes inferred here. Large weights may have stayed in
            their file.
        target: where it should run.
        foreign: nobody knows where the model comes from, so shapes are inferred in a process of their own.

    Returns:
        findings, errors first; an empty list means that nothing is known against it. What is `only_static` stands in
        the way of vitrim's own graphs alone: see `static` for any other.
    """
    return lint_all(model, [target], foreign=foreign)[target.name]


def require_fit(model: onnx.ModelProto, target: Target, what: str) -> None:
    """Refuse a graph that a target does not take.

    Raises:
        UnsupportedError: the first error; `what` begins the message.
    """
    errors = [finding for finding in lint(model, target) if finding.severity == "error"]
    if errors:
        raise UnsupportedError(f"{what} is not fit for {target.name}: {errors[0]}")


def lint_all(model: onnx.ModelProto, targets: Iterable[Target], *, foreign: bool = False) -> dict[str, list[Finding]]:
    """`lint` for several targets, by name; shapes are inferred once."""
    plain, findings = inferred(model, foreign)
    known = Known.of(plain)
    known.constants |= {tensor.name: tensor for tensor in model.graph.initializer}  # with all their data
    known.shapes = shape_values(plain, known.constants)
    findings += [
        Finding(name, "value", "error", f"its data is damaged: {reason}", "export it anew")
        for name, tensor in known.constants.items()
        if tensor is not None and has_data(tensor) and (reason := damage(tensor))
    ]
    result = {}
    for target in targets:
        found = [
            *findings,
            *_check_opset(plain, target),
            *_check_values(plain, target),
            *check_model_types(plain, known, target),
            *(finding for node in all_nodes(plain.graph) for finding in _check_node(node, known, target)),
        ]
        result[target.name] = sorted(dict.fromkeys(found), key=lambda finding: finding.severity)
    return result


def inferred(model: onnx.ModelProto, foreign: bool) -> tuple[onnx.ModelProto, list[Finding]]:
    """The model without large weights, its functions inlined, with the shapes that can be inferred; it is not changed.

    Args:
        model: any model.
        foreign: see `lint`.

    Returns:
        that model, and a finding for each thing that failed.
    """
    findings: list[Finding] = []
    plain = without_weights(model)
    run = _apart if foreign else _here
    if plain.functions:
        try:
            plain = run(onnx.inliner.inline_local_functions, plain)
        except Exception as error:  # the C++ checker behind it raises types of its own
            findings.append(_broken("its functions cannot be inlined", error))
            del plain.functions[:]
    for strict in (True, False):
        try:
            infer = partial(onnx.shape_inference.infer_shapes, strict_mode=strict, data_prop=True)
            return run(infer, plain), findings
        except Exception as error:  # InferenceError, but for damaged graphs whatever the C++ code meets
            if strict:
                findings.append(_broken("shapes cannot be inferred", error))
            if isinstance(error, ApartError):
                break
    return plain, findings


def _here(change: Change, model: onnx.ModelProto) -> onnx.ModelProto:
    return change(model)


def _apart(change: Change, model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.load_from_string(run_apart(lambda: bytes(change(model).SerializeToString())))


def _broken(what: str, error: Exception) -> Finding:
    reason = excerpt(str(error), 200)
    return Finding("graph", "value", "error", f"{what}: {reason}", "export it anew")


def _check_opset(model: onnx.ModelProto, target: Target) -> Iterator[Finding]:
    version = opset_of(model)
    if version is not None and version > target.opset:
        what = f"opset {version} is above {target.name}'s {target.opset}"
        yield Finding("graph", "value", "error", what, "let the passes lower it, or export an older opset")


def _check_values(model: onnx.ModelProto, target: Target) -> Iterator[Finding]:
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    known = set()
    ends = {value.name for value in (*inputs, *graph.output)}
    for value in (*inputs, *graph.output, *graph.value_info):
        tensor = value.type.tensor_type
        if not tensor.HasField("shape") and value.name not in ends:
            continue  # as good as unknown: said below, once, at its node
        known.add(value.name)
        sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
        if not tensor.HasField("shape") or any(size is None for size in sizes):
            names = [
                dim.dim_param or "?" if size is None else str(size)
                for dim, size in zip(tensor.shape.dim, sizes, strict=True)
            ]
            what = f"its shape [{', '.join(names)}] is not static" if tensor.HasField("shape") else "it has no shape"
            yield Finding(
                value.name, "value", "error", what, "trace with fixed batch, image size and token counts", True
            )
        if 0 in sizes:
            yield Finding(
                value.name, "value", "error", "it holds nothing (a dimension is 0)", "remove it from the model"
            )
        if tensor.elem_type == TensorProto.DOUBLE:
            yield double(value.name, target)
        if value.name in ends and not target.int64 and tensor.elem_type in (TensorProto.INT64, TensorProto.BOOL):
            kind = TensorProto.DataType.Name(tensor.elem_type).lower()
            yield Finding(value.name, "value", "error", f"{kind} input or output", "cast it to int32")
    for weight in graph.initializer:
        if weight.data_type == TensorProto.DOUBLE:
            yield double(weight.name, target)
    yield from _unknown_shapes(graph, known | weights, target)


def _unknown_shapes(graph: onnx.GraphProto, known: set[str], target: Target) -> Iterator[Finding]:
    """Values without a shape; behind an operator that only its runtime knows, just that operator is named."""
    blind: set[str] = set()
    for node in graph.node:
        lost = [name for name in node.output if name and name not in known]
        own = node.domain not in DEFAULT_DOMAINS and node.domain in target.domains
        if own and lost:
            what = "only its runtime knows its shape, so nothing behind it is proven static"
            yield Finding(
                name_of(node), node.op_type, "warning", what, "lint the graph before that operator was put in"
            )
        if own or not blind.isdisjoint(node.input):
            blind.update(lost)
            continue
        for name in lost:
            what = "its shape cannot be inferred"
            yield Finding(name, "value", "error", what, f"replace {node.op_type} {node.name} by a static form", True)


def _check_node(node: onnx.NodeProto, known: Known, target: Target) -> Iterable[Finding]:
    name, op = name_of(node), node.op_type
    slow = dict(target.slow).get(op)
    if slow:
        yield Finding(name, op, "warning", slow, _QDQ)
    if node.domain not in DEFAULT_DOMAINS:
        if node.domain not in target.domains:
            what = f"operator of the domain {node.domain}"
            yield Finding(name, op, "error", what, "use standard operators, or give the target a plugin")
        return
    if op in _DYNAMIC:
        computed = op in ("Shape", "Size") or (op == "Range" and known.shapes.issuperset(node.input))
        yield Finding(name, op, "error", _DYNAMIC[op], _TRACE, computed)
    for position in _SIZES.get(op, ()):
        given = node.input[position] if position < len(node.input) else ""
        if given and given not in known.constants:
            yield Finding(name, op, "error", f"its shape is computed ({given})", _TRACE, given in known.shapes)
    if op in target.lacks:
        remedy = _QDQ if op in INTEGER_OPERATORS else "let the passes lower it"
        yield Finding(name, op, "error", f"{target.name} has no {op}", remedy)
    if op in _ONE_OUTPUT and target.runtime == "tensorrt" and any(node.output[1:]):
        yield Finding(name, op, "error", f"TensorRT gives the first output of {op} only", "compute the others apart")
    if op.startswith("Scatter"):
        yield _scatter(node, name, target)
    if op == "TopK":
        yield from _top_k(node, name, known, target)
    yield from check_types(node, known, target)


def _scatter(node: onnx.NodeProto, name: str, target: Target) -> Finding:
    reduction = attribute(node, "reduction", b"none")
    reduction = reduction.decode(errors="replace") if isinstance(reduction, bytes) else str(reduction)
    remedy = "write the merge as a one-hot matrix product (the pass 'merge without scatter')"
    known = dict(target.wrong).get(node.op_type)
    if known is not None and reduction != "none":
        how = "silently wrong: " if target.silent else ""
        return Finding(name, node.op_type, "error", f"{how}reduction={reduction}: {known}", remedy)
    return Finding(name, node.op_type, "error", "scatters are slow, missing or wrong on many runtimes", remedy)


def _top_k(node: onnx.NodeProto, name: str, known: Known, target: Target) -> Iterator[Finding]:
    given = node.input[1] if len(node.input) > 1 else ""
    k = known.value(given)
    if known.constants.get(given) is None:
        computed = given in known.shapes and target.runtime == "onnxruntime"
        remedy = "trace with fixed counts, fold constants"
        yield Finding(name, "TopK", "error", "K is not an initializer", remedy, computed)
    elif target.largest_k and k is not None and k.size and (size := int(np.max(k))) > target.largest_k:
        yield Finding(name, "TopK", "error", f"K = {size} is above {target.largest_k}", "use fewer tokens")
    if not target.integer_topk and known.types.get(node.input[0] if node.input else "") in _INTEGERS:
        yield Finding(name, "TopK", "error", f"{target.name} ranks no integers", "rank them as float32")
    if integer(node, "sorted", 1) == 0 and target.sorted_topk:
        yield Finding(name, "TopK", "error", "TensorRT takes sorted=1 only", "set sorted to 1")


__all__ = ["Finding", "compare_tables", "lint", "lint_all", "operator_table"]
