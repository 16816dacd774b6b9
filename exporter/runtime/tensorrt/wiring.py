"""A network as TensorRT's own parser made it, layer by layer: it is there where engines are built. Torch-free."""

from __future__ import annotations

from typing import Any

from ...core.wiring import Step, Wiring, wiring_of
from .inspector import onnx_nodes

_HELPER = "ONNXTRT_"  # layers of the parser's own


def read_wiring(network: Any) -> Wiring:
    """The wiring of a parsed network."""
    return wiring_of(_steps(network))


def _steps(network: Any) -> list[Step]:
    """Layers in the parser's order, in which makers come first."""
    steps: list[Step] = []
    made: dict[str, int] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        found = onnx_nodes(getattr(layer, "metadata", ""))  # 8.5 has no metadata, but names alike
        inputs = [layer.get_input(number) for number in range(layer.num_inputs)]
        inputs = [tensor for tensor in inputs if tensor is not None]
        makers = tuple(made.get(tensor.name) for tensor in inputs)
        node = found[0] if found else "" if layer.name.startswith(_HELPER) else str(layer.name)
        shapes = tuple(tuple(getattr(tensor, "shape", ())) for tensor in inputs)
        steps.append(Step(node, str(layer.type).rpartition(".")[2], makers, shapes))
        made.update({layer.get_output(number).name: index for number in range(layer.num_outputs)})
    return steps
