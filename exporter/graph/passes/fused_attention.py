"""onnxruntime's fused Attention (opset 23) straight from the qkv projection, in its 3-D form.

::

    qkv [B,N,3D] --Reshape--Transpose--Split--Squeeze x3--Mul--MatMul--Softmax--MatMul--Transpose--Reshape [B,N,D]
        =>  qkv --Split--+--Attention(q, k, v; q_num_heads = kv_num_heads = H, scale)-- [B,N,D]

1. self-attention with the plain timm layout;
2. a bias of every key (proportional attention) before the softmax: it becomes the mask, one row a query;
3. a pruning stage reads the matrix too: Attention hands it out as its fourth output;
4. a pruning stage reads queries, keys or values [B,H,N,d] too: it gets them from the same Split;
5. keys averaged over heads in that form: the mean is taken before they are transposed;
6. queries of fewer tokens have a projection of their own, keys and values one together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from ..surgery import raise_opset
from .base import Builder, Context, PatternPass, constant, only_consumer, producer, scalar, static_shape

FUSED_OPSET = 23
AFTER_SOFTMAX = 3  # of Attention's qk_matmul_output_mode


@dataclass(frozen=True)
class Match:
    """One self-attention.

    Attributes:
        qkv: the projection, [batch, tokens, 3 * width]; of keys and values, [batch, tokens, 2 * width], where queries
            have their own.
        queries: that one, [batch, asking, width]; None: they are in `qkv`.
        asking: tokens that have a query.
        last: the node that merges the heads.
        shape: [batch, tokens, 3 or 2, heads, width of a head].
        scale: of the queries.
        bias: of every key, [1 or batch, 1, 1, keys]; None: none.
        matrix: what the softmax makes, if it is read elsewhere, too.
        shared: queries (0), keys (1) and values (2) that are read elsewhere, too.
    """

    qkv: gs.Tensor
    queries: gs.Tensor | None
    asking: int
    last: gs.Node
    shape: list[int]
    scale: float
    bias: gs.Tensor | None
    matrix: gs.Tensor | None
    shared: Mapping[int, gs.Tensor]


@dataclass(frozen=True)
class Mean:
    """A mean of a transposed tensor.

    Attributes:
        node: the ReduceMean.
        source: before it is transposed.
        axes: of the source that the mean is taken over.
    """

    node: gs.Node
    source: gs.Tensor
    axes: list[int]


def _projection(tensor: gs.Tensor) -> tuple[gs.Node, int] | None:
    """(the Split that cut it out, its position) of a query, key or value, else None."""
    squeeze = producer(tensor, "Squeeze")
    if squeeze is None:
        return None
    split = producer(squeeze.inputs[0], "Split")
    if split is None:
        return None
    return split, next(i for i, out in enumerate(split.outputs) if out is squeeze.inputs[0])


def _own(tensor: gs.Tensor) -> gs.Tensor | None:
    """The projection that is all of a query, [batch, asking, width]; None where it is cut out of a larger one."""
    turn = producer(tensor, "Transpose")
    apart = (
        None
        if turn is None or list(turn.attrs.get("perm", [])) != [0, 2, 1, 3]
        else producer(turn.inputs[0], "Reshape")
    )
    shape = None if apart is None else static_shape(apart.inputs[0])
    return apart.inputs[0] if apart is not None and shape is not None and len(shape) == 3 else None


def match(node: gs.Node, context: Context) -> Match | str:
    """Cases 1 to 4, and 6."""
    matrix = static_shape(node.outputs[0])
    if matrix is None or len(matrix) != 4 or int(node.attrs.get("axis", -1)) not in (-1, 3):
        return "it is no softmax over the last axis of [batch, heads, queries, keys]"
    scores, bias = _biased(node.inputs[0])
    product = next((reader for reader in node.outputs[0].outputs if _applies(reader, node.outputs[0])), None)
    if product is None or scores is None:
        return "it is not a plain softmax attention"
    scaled, keys = producer(scores.inputs[0], "Mul"), producer(scores.inputs[1], "Transpose")
    if scaled is None or keys is None or list(keys.attrs.get("perm", [])) != [0, 1, 3, 2]:
        return "queries are not scaled, or keys are not transposed, in the plain way"
    scale = scalar(scaled.inputs[1])
    own, read = _own(scaled.inputs[0]), (scaled.inputs[0], keys.inputs[0], product.inputs[1])
    parts = [_projection(tensor) for tensor in (read if own is None else read[1:])]
    if scale is None or any(part is None for part in parts):
        return "queries, keys and values do not come straight from one projection (QK-norm, for instance)"
    splits = {id(part[0]) for part in parts if part}
    if len(splits) != 1 or [part[1] for part in parts if part] != list(range(len(parts))):
        return "queries, keys and values do not come from one projection"
    split = parts[0][0]  # type: ignore[index]
    transpose = producer(split.inputs[0], "Transpose")
    reshape = producer(transpose.inputs[0], "Reshape") if transpose is not None else None
    back = only_consumer(product.outputs[0])
    merged = only_consumer(back.outputs[0]) if back is not None and back.op == "Transpose" else None
    if transpose is None or list(transpose.attrs["perm"]) != [2, 0, 3, 1, 4] or reshape is None:
        return "the projection is not laid out as timm does"
    if merged is None or merged.op != "Reshape" or back is None or list(back.attrs["perm"]) != [0, 2, 1, 3]:
        return "its heads are not merged as timm does"
    shape = static_shape(reshape.outputs[0])
    if shape is None or len(shape) != 5 or shape[2] != len(parts):
        return "the projection is not [batch, tokens, 3, heads, width of a head]"
    batch, _, _, heads, head_dim = shape
    asking = matrix[2]
    if static_shape(merged.outputs[0]) != [batch, asking, heads * head_dim]:
        return "its heads are not merged as timm does"
    readers = [reader for reader in node.outputs[0].outputs if reader is not product]
    nodes = (scaled, keys, product)
    shared = {
        place: tensor
        for place, (tensor, reader) in enumerate(zip(read, nodes, strict=True))
        if (place or own is None)
        and (tensor.name in context.outputs or any(other is not reader for other in tensor.outputs))
    }
    wanted = node.outputs[0] if readers or node.outputs[0].name in context.outputs else None
    return Match(reshape.inputs[0], own, asking, merged, shape, scale, bias, wanted, shared)


def _biased(logits: gs.Tensor) -> tuple[gs.Node | None, gs.Tensor | None]:
    """The MatMul behind the softmax, and the bias [1 or batch, 1, 1, keys] added to it, if any."""
    added = producer(logits, "Add")
    if added is None:
        return producer(logits, "MatMul"), None
    for product, bias in (added.inputs, added.inputs[::-1]):
        shape = static_shape(bias)
        if shape is not None and len(shape) == 4 and shape[1:3] == [1, 1] and not isinstance(bias, gs.Constant):
            return producer(product, "MatMul"), bias
    return None, None


def _applies(reader: gs.Node, matrix: gs.Tensor) -> bool:
    """Whether a reader of the matrix applies it to values whose heads are then merged."""
    if reader.op != "MatMul" or reader.inputs[0] is not matrix:
        return False
    back = only_consumer(reader.outputs[0])
    return back is not None and back.op == "Transpose" and _projection(reader.inputs[1]) is not None


def apply(graph: gs.Graph, found: Match, context: Context) -> None:
    """One Split and one Attention; whatever else a pruning stage reads is made from them."""
    build = Builder(graph, "attention")
    batch, tokens, _, heads, head_dim = found.shape
    width, out = heads * head_dim, found.last.outputs[0]
    found.last.outputs.clear()
    dtype = found.qkv.dtype
    names = [build.name(part) for part in (("q", "k", "v") if found.queries is None else ("k", "v"))]
    parts: list[gs.Tensor] = [gs.Variable(name, dtype=dtype, shape=[batch, tokens, width]) for name in names]
    sizes = build.const([width] * len(parts), "int64", "parts")
    graph.nodes.append(gs.Node("Split", build.name("Split"), {"axis": 2}, [found.qkv, sizes], list(parts)))
    parts = parts if found.queries is None else [found.queries, *parts]
    heads_of = {"q_num_heads": heads, "kv_num_heads": heads, "scale": found.scale}
    inputs = [*parts, _mask(build, found.bias, [batch, 1, found.asking, tokens])] if found.bias is not None else parts
    build.node("Attention", inputs, [batch, found.asking, width], out.dtype, out, **heads_of)
    for place, tensor in found.shared.items():
        apart = [batch, tokens, heads, head_dim]
        cut = build.node("Reshape", [parts[place], build.const(apart, "int64", "shape")], apart, dtype)
        build.node("Transpose", [cut], [batch, heads, tokens, head_dim], dtype, tensor, perm=[0, 2, 1, 3])
    if found.matrix is not None:
        attention = out.inputs[0]
        found.matrix.inputs.clear()
        attention.attrs["qk_matmul_output_mode"] = AFTER_SOFTMAX
        attention.outputs += [gs.Variable.empty(), gs.Variable.empty(), found.matrix]
    raise_opset(graph, FUSED_OPSET)


def _mask(build: Builder, bias: gs.Tensor, shape: list[int]) -> gs.Tensor:
    """The bias once a query, [batch, 1, asking, tokens], as onnxruntime wants it; made once for all its readers."""
    for reader in bias.outputs:
        if reader.op == "Expand" and static_shape(reader.outputs[0]) == shape:
            return reader.outputs[0]
    return build.node("Expand", [bias, build.const(shape, "int64", "queries")], shape, bias.dtype)


def match_mean(node: gs.Node, context: Context) -> Mean | str | None:
    """Case 5."""
    turn, axes = producer(node.inputs[0], "Transpose"), constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if turn is None or axes is None or int(node.attrs.get("keepdims", 1)) or only_consumer(node.inputs[0]) is not node:
        return None
    perm = list(turn.attrs["perm"])
    reduced = [perm[axis] for axis in axes.reshape(-1)]
    rest = [axis for axis in perm if axis not in reduced]
    if rest != sorted(rest):
        return "what is left would still have to be transposed"
    return Mean(node, turn.inputs[0], reduced)


def apply_mean(graph: gs.Graph, found: Mean, context: Context) -> None:
    """The mean over the axes as they were before the transpose."""
    axes = Builder(graph, "mean").const(found.axes, "int64", "axes")
    found.node.inputs = [found.source, axes]


MEAN_BEFORE_TRANSPOSE = PatternPass("mean before the transpose", frozenset({"ReduceMean"}), match_mean, apply_mean)
FUSED_ATTENTION = PatternPass(
    "fused Attention", frozenset({"Softmax"}), match, apply, lambda context: context.fused_attention
)
