"""Which block or stage of the model each node of a graph is of."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

import onnx

from ..core.wiring import BLOCK, EMBEDDING, STAGE, Step, wiring_of
from .files import read_bare
from .lint.cut import typed_values

# What the wiring calls a node; any other operator has its own name.
_KINDS = {
    **dict.fromkeys(("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul", "FusedMatMul"), "MATRIX_MULTIPLY"),
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv"), "CONVOLUTION"),
    **dict.fromkeys(("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"), "SHUFFLE"),
    "Add": "ELEMENTWISE",
    "Cast": "CAST",
    "Constant": "CONSTANT",
    "DequantizeLinear": "DEQUANTIZE",
    "Gather": "GATHER",
    "Identity": "IDENTITY",
    "QuantizeLinear": "QUANTIZE",
    "Slice": "SLICE",
    "Softmax": "SOFTMAX",
}


def blocks_of(path: str | os.PathLike[str], after: Collection[int] = ()) -> dict[str, str]:
    """By node where it belongs: `embedding`, `block <n>` with the stage in it, or `head`.

    Empty where the graph has no blocks that can be told. Weights stay in their file.

    Args:
        path: the graph.
        after: blocks with a stage behind them; what else stands between two blocks is of the second one, such as keys
            of all tokens, made before some of them go.

    Raises:
        InputError: the file is missing, or no ONNX graph.
    """
    model, _ = read_bare(path)
    found = wiring_of(list(_steps(model)))
    return {node: _block(part, node in found.behind, after) for node, part in found.parts.items()}


def _block(part: str, behind: bool, after: Collection[int]) -> str:
    """A stage's block."""
    name, _, number = part.partition(" ")
    if name == EMBEDDING and behind:
        return f"{BLOCK} 0"
    if name != STAGE:
        return part
    return f"{BLOCK} {int(number) + (behind and int(number) not in after)}"


def _steps(model: onnx.ModelProto) -> Iterator[Step]:
    """Constants first, then the nodes in the graph's order, in which makers come first."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    made = {name: at for at, name in enumerate(shapes)}
    shapes |= {
        name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for name, value in typed_values(model).items()
    }
    yield from (Step("", "CONSTANT", (), ()) for _ in made)
    for at, node in enumerate(model.graph.node, len(made)):
        inputs = [name for name in node.input if name]
        kind = _KINDS.get(node.op_type, node.op_type.upper())
        makers = tuple(made.get(name) for name in inputs)
        yield Step(node.name, kind, makers, tuple(shapes.get(name, ()) for name in inputs))
        made.update(dict.fromkeys(node.output, at))
