"""Lint of element types: what a target cannot hold, what an opset does not allow yet, and how it wants quantization."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import onnx
import onnx.defs

from ...core.targets import Target
from ..weights import all_graphs
from .facts import DEFAULT_DOMAINS, Finding, Known, integer, name_of, type_name

_HALVES = {"FLOAT16": "fp16", "BFLOAT16": "bf16"}
_NORMS = {"GroupNormalization", "InstanceNormalization", "LayerNormalization", "RMSNormalization"}
_INT32 = np.iinfo(np.int32)
_QUANTIZED = {
    "INT8",
    "FLOAT8E4M3FN",
    "INT4",
    "FLOAT4E2M1",
}  # each where the version has the type
_QUANTIZED_ONLY = {"FLOAT8E4M3FN", "INT4", "FLOAT4E2M1"}
_BYTES_IN = {"Cast", "CastLike", "Identity", "Shape", "Size"}  # that uint8 may go into
_PRODUCTS = {"MatMul", "Gemm", "Einsum"}


def check_model_types(model: onnx.ModelProto, known: Known, target: Target) -> Iterator[Finding]:
    """Findings on the types of inputs and weights.

    Args:
        model: with inferred shapes.
        known: what is known of it.
        target: where it should run.
    """
    for graph in all_graphs(model.graph):
        held = {tensor.name: tensor.data_type for tensor in graph.initializer}
        held |= {value.name: value.type.tensor_type.elem_type for value in graph.input if value.name not in held}
        for name, number in held.items():
            if number:
                yield from _element_type(name, "value", type_name(number), target)
    if target.int64:
        return
    for name in known.constants:
        if known.types.get(name, "INT64") == "INT64":
            yield from _narrowed(name, known, target)


def _narrowed(name: str, known: Known, target: Target) -> Iterator[Finding]:
    value = known.value(name)
    if value is None or value.dtype != np.int64 or not value.size:
        return
    worst = next((int(end) for end in (value.min(), value.max()) if not _INT32.min <= end <= _INT32.max), None)
    if worst is None or _only_bounds(name, known):
        return
    what = f"silently wrong: it holds {worst}, which {target.name} clamps to int32"
    yield Finding(name, "value", "error", what, "keep integers below 2^31")


def _only_bounds(name: str, known: Known) -> bool:
    """Whether a constant is read as Slice's starts and ends only: `to the very end` survives being clamped."""
    readers = known.readers.get(name, [])
    return bool(readers) and all(node.op_type == "Slice" and name in node.input[1:3] for node in readers)


def _element_type(name: str, op: str, kind: str, target: Target) -> Iterator[Finding]:
    if kind == "DOUBLE":  # said of every target, by the checks of values
        return
    if kind not in target.types:
        precision = _HALVES.get(kind)
        remedy = "write the graph in fp16 or fp32" if precision else "cast it to int32 or float32"
        yield Finding(name, op, "error", f"{target.name} has no {kind.lower()}", remedy)
    elif kind in _HALVES and _HALVES[kind] not in target.precisions:
        what = f"{target.name} computes {kind.lower()} through casts to float32, so it is slower for it"
        yield Finding(name, op, "warning", what, "give it the float32 graph")


def double(name: str, target: Target) -> Finding:
    """A value of float64, which TensorRT casts to float32 on its way in."""
    if target.runtime == "tensorrt":
        what = "float64, which TensorRT computes in float32, with what is beyond it clamped"
        return Finding(name, "value", "warning", what, "cast to float32, and nothing changes unseen")
    return Finding(name, "value", "error", "float64", "no edge runtime is fast in it; cast to float32")


def check_types(node: onnx.NodeProto, known: Known, target: Target) -> Iterator[Finding]:
    """Findings on the types that one node of ONNX's own domain reads and makes."""
    name, op = name_of(node), node.op_type
    kinds = [known.types[out] for out in node.output if out in known.types]
    for kind in dict.fromkeys(kinds):
        yield from _element_type(name, op, kind, target)
    yield from _allowed(node, name, known)
    first = known.types.get(node.input[0], "") if node.input else ""
    if op in dict(target.refuses).get(first, ()):
        what = f"{target.name} has {op}, but not of {first.lower()}"
        yield Finding(name, op, "error", what, "cast to another type around it, or write it in other operators")
    if target.runtime == "tensorrt":
        yield from _bytes(node, name, first, known)
        yield from _casts(node, name, {first, *kinds})
        if op in _PRODUCTS and "INT" in first:
            yield Finding(name, op, "error", "TensorRT multiplies matrices of floats only", "cast them to float32")
        if op in _NORMS and first == "FLOAT16":
            what = "float16: sums of its squares overflow above 65504 wherever TensorRT does not widen them"
            yield Finding(name, op, "warning", what, "keep it in float32 between two Casts, or prove the engine")
    if "fp16" in target.precisions and _squares_summed(node, first, known):
        what = "float16 squares are summed, which overflows above 65504"
        yield Finding(name, op, "warning", what, "sum them in float32 between two Casts")
    if op in ("QuantizeLinear", "DequantizeLinear") and node.output:
        yield from _quantized(node, name, known, target)


def _bytes(node: onnx.NodeProto, name: str, first: str, known: Known) -> Iterator[Finding]:
    """uint8, which TensorRT has for inputs and outputs of the whole graph only."""
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        return  # said below
    if first == "UINT8" and node.op_type not in _BYTES_IN:
        what = "TensorRT computes nothing in uint8, which only inputs and outputs of a graph may be"
        yield Finding(name, node.op_type, "error", what, f"Cast {node.input[0]} to float32 first")
    for made in node.output:
        if known.types.get(made) == "UINT8" and made not in known.outputs:
            what = f"TensorRT keeps nothing in uint8 within a graph, as {made} would be"
            yield Finding(name, node.op_type, "error", what, "make it int32 or float32")


def _casts(node: onnx.NodeProto, name: str, kinds: set[str]) -> Iterator[Finding]:
    """Types that TensorRT has for quantized values only (onnx-tensorrt's docs/operators.md)."""
    for kind in sorted(kinds & _QUANTIZED_ONLY) if node.op_type in ("Cast", "CastLike") else ():
        what = f"TensorRT casts nothing to or from {kind.lower()}"
        yield Finding(name, node.op_type, "error", what, "take QuantizeLinear and DequantizeLinear")


def _squares_summed(node: onnx.NodeProto, kind: str, known: Known) -> bool:
    square = node.op_type == "Pow" or (node.op_type == "Mul" and len(set(node.input)) == 1)
    if kind != "FLOAT16" or not square or not node.output:
        return False
    return any(reader.op_type in ("ReduceMean", "ReduceSum") for reader in known.readers.get(node.output[0], []))


@functools.lru_cache(maxsize=1024)
def _schema(op: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return None


def _takes(op: str, opset: int, position: int) -> set[str]:
    """Types that an operator's input may have, empty where there is no such input."""
    schema = _schema(op, opset)
    if schema is None or not schema.inputs:
        return set()
    last = len(schema.inputs) - 1
    if position > last and schema.inputs[last].option != onnx.defs.OpSchema.FormalParameterOption.Variadic:
        return set()
    return set(schema.inputs[min(position, last)].types)


def _allowed(node: onnx.NodeProto, name: str, known: Known) -> Iterator[Finding]:
    """Inputs whose type the operator does not take in the declared opset."""
    op, opset = node.op_type, known.opset
    for position, given in enumerate(node.input):
        kind = f"tensor({known.types.get(given, '').lower()})"
        taken = _takes(op, opset, position)
        if given not in known.types or not taken or kind in taken:
            continue
        newest = onnx.defs.onnx_opset_version()
        since = next((v for v in range(opset + 1, newest + 1) if kind in _takes(op, v, position)), None)
        when = f"before opset {since}" if since else "in any opset"
        remedy = f"declare opset {since} if the target has it, or cast" if since else "cast"
        what = f"it takes no {kind[7:-1]} {when}, and this graph declares {opset}"
        yield Finding(name, op, "error", what, f"{remedy} {given} first")
        return


def _quantized(node: onnx.NodeProto, name: str, known: Known, target: Target) -> Iterator[Finding]:
    """QuantizeLinear and DequantizeLinear: scales everywhere, the rest where a target is symmetric only."""
    op, inputs = node.op_type, [*node.input, "", "", ""][:3]
    data, scale, zero = inputs
    values = known.value(scale)
    if values is not None and values.dtype.kind == "f" and not (np.isfinite(values) & (values > 0)).all():
        yield Finding(name, op, "error", "a scale is zero, negative or not finite", "calibrate it anew")
    if not target.symmetric:
        return
    if scale not in known.constants and not target.computed_scales:
        yield Finding(name, op, "error", "its scale is computed; TensorRT wants a constant", "calibrate it beforehand")
    if zero and zero not in known.constants:
        yield Finding(name, op, "error", "its zero point is computed", "quantize symmetrically, with zero point 0")
    elif zero and (offset := known.value(zero)) is not None and offset.astype(np.float32).any():
        what = "its zero point is not 0; TensorRT quantizes symmetrically only"
        yield Finding(name, op, "error", what, "quantize symmetrically, with zero point 0")
    kind = known.types.get(node.output[0] if op == "QuantizeLinear" else data, "")
    if kind and kind not in _QUANTIZED & target.types:
        remedy = "keep biases in float32" if kind == "INT32" else "quantize to int8"
        yield Finding(name, op, "error", f"{kind.lower()}: TensorRT quantizes to int8 only", remedy)
    weights = op == "DequantizeLinear" and known.types.get(data) == "INT8" and data in known.constants
    if weights and target.tensorrt and target.tensorrt < (10, 0):
        what = "int8 weights; TensorRT 8 wants float weights, a QuantizeLinear and this node"
        yield Finding(name, op, "warning", what, "put the pair on weights, too")
    yield from _per_channel(node, name, data, scale, known)


def _per_channel(node: onnx.NodeProto, name: str, data: str, scale: str, known: Known) -> Iterator[Finding]:
    """A scale a channel: for weights only, and along the channels that come out."""
    tensor, op = known.constants.get(scale), node.op_type
    if tensor is None or len(tensor.dims) != 1 or tensor.dims[0] == 1:
        return
    pair = next((reader for reader in known.readers.get(node.output[0], []) if reader.op_type != op), None)
    if data not in known.constants:
        if op == "QuantizeLinear":
            what = "a scale per channel for an activation; TensorRT takes them for weights only"
            yield Finding(name, op, "error", what, "give it one scale")
        return
    source = node.output[0]
    if op == "QuantizeLinear" and pair is not None and pair.op_type == "DequantizeLinear" and pair.output:
        source = pair.output[0]
    rank = known.ranks.get(data, 0)
    axis = integer(node, "axis", 1) % rank if rank else 0
    for reader in known.readers.get(source, []):
        wanted = _channel_axis(reader, source, rank)
        if wanted is not None and axis != wanted:
            what = f"its scales run along axis {axis} of {reader.op_type}'s weight, whose outputs are axis {wanted}"
            yield Finding(name, op, "error", what, "take one scale an output channel")


def _channel_axis(reader: onnx.NodeProto, weight: str, rank: int) -> int | None:
    """The axis of a weight that its reader's output channels run along, None where there is no rule."""
    if reader.domain not in DEFAULT_DOMAINS or len(reader.input) < 2 or reader.input[1] != weight:
        return None
    if reader.op_type == "Conv":
        return 0
    if reader.op_type == "ConvTranspose":
        return 1
    if reader.op_type == "Gemm":
        return 0 if integer(reader, "transB", 0) else 1
    return rank - 1 if reader.op_type == "MatMul" else None
