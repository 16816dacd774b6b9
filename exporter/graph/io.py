"""A graph's two ends as a device wants them: 8-bit pixels in, the best classes out.

Pixels in: `image` is uint8 [batch, height, width, channels], and mean, deviation and 1/255 are in the patch embedding::

    image f32 NCHW --Conv--Reshape--Transpose----- tokens --[Concat]--Add(positions)-- ...
      =>
    image u8 NHWC --Cast--Reshape--Transpose--Reshape--MatMul-- tokens --[Concat]--Add(positions + bias)-- ...

1. w'[i, j, c, d] = w[d, c, i, j] / (255 std[c]) and b'[d] = b[d] - sum of w[d, c, i, j] mean[c] / std[c], in float64,
   rounded once;
2. both Reshapes are views; the Transpose moves whole rows of patches, and is instead of that of the tokens;
3. the bias goes into the position embedding where one is added next; else an Add is left (BEiT, DINOv3, Swin).

The Cast is first because TensorRT reads uint8 with nothing else (NVIDIA/TensorRT#3985). A Conv on a one-channel view of
the pixels, or behind a Transpose to NCHW, is slower where the machine is quiet enough to tell (benchmarks/camera.py).

Best classes out, beside the logits::

    logits --Softmax--TopK(k)-- probabilities
                         \\--Cast-- classes
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ..core.answers import ranking_error
from ..core.errors import InputError, ParityError, UnsupportedError
from ..core.preprocess import Preprocess, channel_constants, to_pixels
from .passes.base import Builder, PassReport, constant, only_consumer, onnx_type, static_shape
from .patches import as_rows, tokens_of, why_no_patches
from .shapes import with_shapes
from .surgery import export_graph, import_graph
from .verify import hold_against, only_until, run_once
from .weights import Weights

PIXELS, RANKED = "pixels in, normalization in the patch embedding", "softmax and top-k"
PIXELS_NOTE = "uint8 [batch, height, width, channels], RGB, 0..255; the graph normalizes"
_RANKING_ATOL = 1e-6  # float32 softmax of the same logits


@dataclass(frozen=True)
class Ends:
    """What a graph takes and gives beside its logits.

    Attributes:
        preprocess: of the model.
        pixels: whether the graph takes uint8 pixels instead of preprocessed float32 images.
        top_k: how many of the best classes it gives out; None: none.
    """

    preprocess: Preprocess
    pixels: bool = False
    top_k: int | None = None


def rewrite_ends(
    model: onnx.ModelProto, ends: Ends, image: np.ndarray | None = None, weights: Weights | None = None
) -> tuple[onnx.ModelProto, list[PassReport]]:
    """Give a finished float32 graph the ends that are asked for.

    Args:
        model: after all passes, shapes inferred; it is not changed.
        ends: what is asked for; where that is nothing, the model itself is returned.
        image: [batch, channels, height, width] float32 on the 8-bit grid; given, the new graph is held against the one
            before on it.
        weights: where the weights are that the model has beside it; new ones are in the new model.

    Returns:
        the new model with inferred shapes, and a report for each end that changed.

    Raises:
        UnsupportedError: the patch embedding is not one convolution without padding; the node is named.
        InputError: `top_k` is more than the model's classes.
        ParityError: an end changed the numbers.
    """
    reports: list[PassReport] = []
    if ends.pixels:
        began, graph = time.perf_counter(), import_graph(model, weights)
        held = take_pixels(graph, ends.preprocess)
        changed = with_shapes(export_graph(graph, model))
        changed.metadata_props.add(key="vitrim.input", value=PIXELS_NOTE)
        error = None if image is None else _hold_pixels((model, changed), held, image, ends.preprocess, weights)
        reports.append(_report(PIXELS, model, changed, error, began))
        model = changed
    if ends.top_k is not None:
        began, graph = time.perf_counter(), import_graph(model, weights)
        rank_classes(graph, ends.top_k)
        changed = with_shapes(export_graph(graph, model))
        error = None
        if image is not None:
            given = to_pixels(image, ends.preprocess) if ends.pixels else image
            error = _hold_ranking(model, changed, given, weights)
        reports.append(_report(RANKED, model, changed, error, began))
        model = changed
    return model, reports


def _report(name: str, old: onnx.ModelProto, new: onnx.ModelProto, error: float | None, began: float) -> PassReport:
    nodes = (len(old.graph.node), len(new.graph.node))
    return PassReport(name, 1, nodes=nodes, max_abs=error, seconds=time.perf_counter() - began)


def _hold_pixels(
    graphs: tuple[onnx.ModelProto, onnx.ModelProto],
    held: str,
    image: np.ndarray,
    preprocess: Preprocess,
    weights: Weights | None,
) -> float:
    """Embedded tokens of both; all that follows them is the same in both graphs."""
    old, new = (only_until(model, [held]) for model in graphs)
    before = run_once(old, {"image": image}, weights)
    return hold_against(PIXELS, before, run_once(new, {"image": to_pixels(image, preprocess)}, weights))


def _hold_ranking(old: onnx.ModelProto, new: onnx.ModelProto, image: np.ndarray, weights: Weights | None) -> float:
    before, after = (run_once(model, {"image": image}, weights) for model in (old, new))
    hold_against(RANKED, before, after)
    error = ranking_error(before["logits"], after["probabilities"], after["classes"])
    if not error <= _RANKING_ATOL:
        raise ParityError(f"pass '{RANKED}' gives probabilities that are {error:.3g} off, more than {_RANKING_ATOL:g}")
    return error


def take_pixels(graph: gs.Graph, preprocess: Preprocess) -> str:
    """Make the graph's `image` uint8 [batch, height, width, channels], in place.

    Returns:
        name of the tensor from which on nothing has changed.

    Raises:
        UnsupportedError: the patch embedding is not one convolution without padding; the node is named.
    """
    conv = _patch_conv(graph)
    image, weight = graph.inputs[0], constant(conv.inputs[1])
    assert weight is not None
    channels, rows, columns = weight.shape[1:]
    batch, _, height, across = static_shape(image) or []
    high, wide = height // rows, across // columns
    tokens = tokens_of(conv)
    if tokens is None:
        raise _refuse(f"what node {conv.name} (Conv) makes is not laid out as tokens next")
    shape = static_shape(tokens) or []
    bias = constant(conv.inputs[2]) if len(conv.inputs) > 2 else None
    matrix, moved = folded(weight, bias, preprocess)

    build = Builder(graph, "pixels")
    image.dtype, image.shape = np.dtype(np.uint8), [batch, height, across, channels]
    conv.inputs.clear()
    x = build.node("Cast", [image], list(image.shape), np.float32, to=onnx_type(np.float32))
    x = as_rows(build, x, [batch, high, rows, wide, columns * channels], [0, 1, 3, 2, 4], shape)
    inputs = [x, build.const(matrix.astype(np.float32), np.float32, "weight")]
    held = _into_positions(build, tokens, moved)
    if held is not None:
        build.node("MatMul", inputs, shape, np.float32, out=tokens)
    else:
        x = build.node("MatMul", inputs, shape, np.float32)
        held = build.node("Add", [x, build.const(moved, np.float32, "bias")], shape, np.float32, out=tokens)
    graph.cleanup().toposort()
    return str(held.name)


def folded(weight: np.ndarray, bias: np.ndarray | None, preprocess: Preprocess) -> tuple[np.ndarray, np.ndarray]:
    """A patch convolution on normalized images as a matrix on pixels.

    Args:
        weight: [width, channels, rows, columns].
        bias: [width] or None.
        preprocess: how pixels are normalized.

    Returns:
        matrix [rows * columns * channels, width] and bias [width], float64.
    """
    mean, std = channel_constants(preprocess)
    scaled = weight.astype(np.float64) / std[:, None, None]
    moved = -(scaled * mean[:, None, None]).sum((1, 2, 3))
    moved = moved if bias is None else moved + bias.astype(np.float64)
    return (scaled / 255).transpose(2, 3, 1, 0).reshape(-1, len(weight)), moved


def _patch_conv(graph: gs.Graph) -> gs.Node:
    """The only reader of the image, if it cuts it into patches."""
    image = graph.inputs[0]
    if len(graph.inputs) != 1 or image.dtype != np.float32 or len(static_shape(image) or []) != 4:
        found = ", ".join(f"{tensor.name} {tensor.dtype} {tensor.shape}" for tensor in graph.inputs)
        raise _refuse(f"the graph has the inputs {found}, not one float32 image of static shape")
    conv = only_consumer(image)
    if conv is None or conv.op != "Conv" or constant(conv.inputs[1]) is None:
        readers = ", ".join(f"{node.name} ({node.op})" for node in image.outputs)
        raise _refuse(f"the image is read by {readers}, not by one convolution")
    reason = why_no_patches(conv)
    if reason is not None:
        raise _refuse(f"node {conv.name} (Conv) {reason}")
    return conv


def _refuse(reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"export.input is uint8, but the normalization cannot be folded into the patch embedding: {reason}; "
        "take export.input: float32"
    )


def _into_positions(build: Builder, tokens: gs.Tensor, bias: np.ndarray) -> gs.Tensor | None:
    """Case 3: the output of the Add that now adds the bias too; None where none can."""
    reader, start = only_consumer(tokens), 0
    shape = static_shape(tokens) or []
    source, count = tokens, shape[1] if len(shape) == 3 else 0
    if reader is not None and reader.op == "Concat" and len(shape) == 3 and reader.attrs["axis"] in (1, -2):
        sizes = [static_shape(tensor) for tensor in reader.inputs]
        place = next(index for index, tensor in enumerate(reader.inputs) if tensor is tokens)
        if any(size is None for size in sizes):
            return None
        start = sum(size[1] for size in sizes[:place] if size)
        source = reader.outputs[0]
        reader = only_consumer(source)
    if reader is None or reader.op != "Add" or not count:
        return None
    position = 1 if reader.inputs[0] is source else 0
    values = constant(reader.inputs[position])
    if values is None or values.shape[-2:] != ((static_shape(source) or [])[1], shape[2]):
        return None
    moved = values.astype(np.float64)
    moved[..., start : start + count, :] += bias
    reader.inputs[position] = build.const(moved, np.float32, "positions")
    return reader.outputs[0]


def rank_classes(graph: gs.Graph, k: int) -> None:
    """Add the outputs `probabilities` [batch, k] float32 and `classes` [batch, k] int32, best first, in place.

    Raises:
        InputError: the model has fewer than k classes.
    """
    logits = next(tensor for tensor in graph.outputs if tensor.name == "logits")
    batch, classes = static_shape(logits) or []
    check_top_k(k, classes)
    build = Builder(graph, "ranked")
    share = build.node("Softmax", [logits], [batch, classes], np.float32, axis=-1)
    best = gs.Variable("probabilities", dtype=np.float32, shape=[batch, k])
    wide = gs.Variable(build.name("indices"), dtype=np.int64, shape=[batch, k])
    inputs = [share, build.const([k], "int64", "k")]
    attrs = {"axis": -1, "largest": 1, "sorted": 1}
    graph.nodes.append(gs.Node("TopK", build.name("TopK"), attrs=attrs, inputs=inputs, outputs=[best, wide]))
    ids = gs.Variable("classes", dtype=np.int32, shape=[batch, k])
    build.node("Cast", [wide], [batch, k], np.int32, out=ids, to=onnx_type(np.int32))
    graph.outputs += [best, ids]
    graph.toposort()


def check_top_k(k: int, classes: int) -> None:
    """Refuse to rank more classes than there are.

    Raises:
        InputError: it is so.
    """
    if k > classes:
        raise InputError(f"export.top_k is {k}, but the model has {classes} classes")
