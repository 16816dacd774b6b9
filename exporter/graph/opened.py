"""Any image model's ONNX file, opened as the passes take graphs: one static image in, one row of numbers out.

What a file has of its own is kept: nodes, weights, opset (from 13 on). Its batch gets a number, local functions are
inlined, nodes without a name of their own get one, and the two ends get the names that a bundle's graphs have.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.helper
import onnx.inliner
import onnx.shape_inference
import onnx.version_converter
import onnx_graphsurgeon as gs
from onnx import TensorProto

from ..core.errors import InputError, UnsupportedError, excerpt
from .files import read_bare
from .passes.fold_constants import fold
from .passes.lower_opset import declared
from .passes.rewrite import OLDEST_OPSET
from .session import Session
from .shapes import with_shapes, without_weights
from .surgery import copy_of, export_graph, import_graph
from .weights import Weights, is_external

IMAGE, ANSWER = "image", "logits"  # what a bundle's graphs call their ends
_ROUNDS = 16  # of folding, far more than nests of shapes are deep


@dataclass(frozen=True)
class Opened:
    """A file that was opened.

    Attributes:
        original: as it lies there; its large weights may be beside it.
        model: of a static image, `image` in and `logits` out, else as it came.
        folded: the same graph without what only computes shapes and other constants; shapes inferred.
        weights: where the weights are that they have beside them.
        input, output: what the file calls the two ends.
        shape: of the image.
        size: numbers that an image gets.
        opset: of the file.
    """

    original: onnx.ModelProto
    model: onnx.ModelProto
    folded: onnx.ModelProto
    weights: Weights
    input: str
    output: str
    shape: tuple[int, ...]
    size: int
    opset: int


def open_model(path: str | os.PathLike[str], batch: int | None = None, output: str | None = None) -> Opened:
    """Open an ONNX file.

    Args:
        path: of the file.
        batch: that an open batch dimension gets, None: 1; one that is fixed must be the same.
        output: which of several outputs is wanted; None: the only one that has a row of numbers for every image.

    Raises:
        InputError: no such file, no ONNX, no single image as its input, another batch, or no such output.
        UnsupportedError: its shapes stay open, or its opset cannot be raised; the node is named where there is one.
    """
    original, weights = read_bare(path)
    if not original.graph.node:
        raise InputError(f"{path} holds no graph; is it an ONNX file?")
    model = _inlined(copy_of(original))
    opset = declared(model).version
    image = _image(model, path)
    shape = _static(image, batch, path)
    _fix(model, image, shape)
    graph = import_graph(_raised(model, path), weights)
    _name_nodes(graph)
    plain = export_graph(graph, model)
    folded = with_shapes(_folded(plain, weights))
    answer = _answer(folded, output, shape[0], path)
    ends = (image.name, answer.name)
    made = [export_graph(_renamed(import_graph(each, weights), ends), model) for each in (plain, folded)]
    size = int(answer.type.tensor_type.shape.dim[1].dim_value)
    return Opened(original, made[0], with_shapes(made[1]), weights, *ends, shape, size, opset)


def file_runner(opened: Opened) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The file as it lies there: from a batch of images to its answer, by the name that a bundle calls it."""
    session = Session(opened.original, weights=opened.weights)
    return lambda images: {ANSWER: session({opened.input: images})[opened.output]}


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without local functions, which older exporters wrote."""
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _image(model: onnx.ModelProto, path: str | os.PathLike[str]) -> onnx.ValueInfoProto:
    """The only input that is no weight."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    found = ", ".join(excerpt(value.name, 40) for value in inputs) or "none"
    if len(inputs) != 1:
        raise InputError(f"{path} has the inputs {found}; vitrim takes models of one image")
    kind = inputs[0].type.tensor_type
    if kind.elem_type != TensorProto.FLOAT or len(kind.shape.dim) != 4:
        name = TensorProto.DataType.Name(kind.elem_type).lower()
        raise InputError(
            f"{path}: the input {found} is {name} of {len(kind.shape.dim)} dimensions; vitrim takes a float32 image of "
            "4: batch, channels, height, width, or the channels last"
        )
    return inputs[0]


def _static(image: onnx.ValueInfoProto, batch: int | None, path: str | os.PathLike[str]) -> tuple[int, ...]:
    """The image's shape with a number for the batch."""
    first, *others = image.type.tensor_type.shape.dim
    for place, dim in enumerate(others, start=1):
        if dim.dim_value < 1:
            called = excerpt(dim.dim_param, 40) or "without a name"
            raise InputError(
                f"{path}: dimension {place} of the input {excerpt(image.name, 40)} is open ({called}), and only the "
                "batch may be; export it with a fixed image size"
            )
    fixed = first.dim_value if first.dim_value > 0 else None
    if fixed is not None and batch is not None and fixed != batch:
        raise InputError(f"{path} has a fixed batch of {fixed}, not {batch}; leave --batch out, or export it with that")
    return (fixed or batch or 1, *(int(dim.dim_value) for dim in others))


def _fix(model: onnx.ModelProto, image: onnx.ValueInfoProto, shape: tuple[int, ...]) -> None:
    """Give the input its shape and let go of those that were written down for others, in place."""
    name = image.name
    del model.graph.input[:]
    model.graph.input.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")


def _raised(model: onnx.ModelProto, path: str | os.PathLike[str]) -> onnx.ModelProto:
    """At least of the oldest opset that passes take."""
    found = declared(model).version
    if found >= OLDEST_OPSET:
        return model
    if any(map(is_external, model.graph.initializer)):
        raise UnsupportedError(f"{path} has opset {found} and weights in files of their own; export it in one file")
    try:
        return onnx.version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as error:  # onnx raises RuntimeError, ValueError and its own types
        reason = excerpt(" ".join(str(error).split()), 200)
        words = f"{path} has opset {found}, and ONNX cannot raise it to {OLDEST_OPSET}"
        raise UnsupportedError(f"{words}: {reason}") from error


def _folded(model: onnx.ModelProto, weights: Weights) -> onnx.ModelProto:
    """Without nodes that compute shapes: every round knows more of them, and so may compute more."""
    for _ in range(_ROUNDS):
        known = without_weights(model)
        inferred = onnx.shape_inference.infer_shapes(known, data_prop=False).graph
        seen = copy_of(model)
        del seen.graph.value_info[:]
        seen.graph.value_info.extend(inferred.value_info)
        graph = import_graph(seen, weights)
        if not fold(graph):
            break
        model = export_graph(graph, model)
    return model


def _name_nodes(graph: gs.Graph) -> None:
    """A name of its own for every node, in place."""
    taken = Counter(node.name for node in graph.nodes)
    for number, node in enumerate(graph.nodes):
        if not node.name or taken[node.name] > 1:
            fresh = f"{node.op}_{number}"
            while taken[fresh]:
                fresh += "_"
            taken[fresh] += 1
            node.name = fresh


def _answer(
    model: onnx.ModelProto, wanted: str | None, batch: int, path: str | os.PathLike[str]
) -> onnx.ValueInfoProto:
    """The output with a row of numbers for every image."""
    named = {value.name: value for value in model.graph.output}
    shapes = {name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for name, value in named.items()}
    told = ", ".join(f"{excerpt(name, 40)} {shape}" for name, shape in shapes.items())
    if wanted is not None and wanted not in named:
        raise InputError(f"{path} has no output {wanted!r}; it has {told}")
    fitting = [
        value
        for name, value in named.items()
        if wanted in (None, name) and value.type.tensor_type.elem_type == TensorProto.FLOAT
        if len(shapes[name]) == 2 and shapes[name][0] == batch and shapes[name][1] > 0
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise InputError(f"{path} has several outputs that could be meant: {told}; choose one by --output")
    raise InputError(
        f"{path} has the outputs {told}; vitrim proves and times models that give float32 [{batch}, numbers], such as "
        "logits or features"
    )


def _renamed(graph: gs.Graph, ends: tuple[str, str]) -> gs.Graph:
    """The graph with a bundle's names for its ends and no other output, in place."""
    graph.outputs = [next(tensor for tensor in graph.outputs if tensor.name == ends[1])]
    for tensor, name in ((graph.inputs[0], IMAGE), (graph.outputs[0], ANSWER)):
        tensors = graph.tensors()
        other = tensors.get(name)
        if other is not None and other is not tensor:
            other.name = next(fresh for n in range(len(tensors) + 1) if (fresh := f"{name}_{n}") not in tensors)
        tensor.name = name
    return graph.cleanup().toposort()
