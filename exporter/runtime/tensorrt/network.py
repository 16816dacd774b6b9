"""Networks of TensorRT: made, parsed ones pinned to float32, their int8 products found, given to a DLA. Torch-free."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from ...core.errors import InputError, UnsupportedError
from .family import TENSORRT, Family
from .serializer import Parts
from .versions import Typing, version_of


def create_network(trt: Any, builder: Any, typing: Typing, family: Family = TENSORRT) -> Any:
    """An empty network, explicit batch and typed as `typing` says."""
    flags = trt.NetworkDefinitionCreationFlag
    wanted = 0
    if family is TENSORRT and version_of(trt.__version__) < (10, 0):  # 10 and RTX know no implicit batch
        wanted |= 1 << int(flags.EXPLICIT_BATCH)
    if typing.strong and hasattr(flags, "STRONGLY_TYPED"):  # once it is gone, it is the only way
        wanted |= 1 << int(flags.STRONGLY_TYPED)
    return builder.create_network(wanted)


def open_parser(trt: Any, builder: Any, messages: Any, typing: Typing, family: Family = TENSORRT) -> Parts:
    """An empty network, and a parser that fills it."""
    network = create_network(trt, builder, typing, family)
    trt.init_libnvinfer_plugins(messages, "")
    return Parts(builder, network, trt.OnnxParser(network, messages))


def pin_float32(trt: Any, network: Any, nodes: Collection[str], may_miss: bool = False) -> int:
    """Make layers of a weakly typed network compute and answer in float32.

    Args:
        trt: the tensorrt module.
        network: parsed.
        nodes: names of ONNX nodes; the parser names their layers after them, with `_<number>` when there are several.
        may_miss: leave nodes out that the network does not have.

    Returns:
        how many layers were pinned.

    Raises:
        InputError: a node has no layer.
    """
    found: set[str] = set()
    pinned = 0
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        name = layer.name if layer.name in nodes else re.sub(r"_\d+$", "", layer.name)
        if name not in nodes:
            continue
        found.add(name)
        outputs = [number for number in range(layer.num_outputs) if _is_float(trt, layer.get_output(number))]
        if not outputs or layer.type == trt.LayerType.CONSTANT:
            continue
        layer.precision = trt.float32
        for number in outputs:  # TopK's indices stay integers
            layer.set_output_type(number, trt.float32)
        pinned += 1
    missing = sorted(set(nodes) - found)
    if missing and not may_miss:
        raise InputError(f"the graph has no node {missing[0]} to keep in float32 (and {len(missing) - 1} more)")
    return pinned


def _is_float(trt: Any, tensor: Any) -> bool:
    return tensor is not None and tensor.dtype in (trt.float32, trt.float16)


def quantized_layers(trt: Any, network: Any) -> set[str]:
    """Names of the matrix multiplications and convolutions of a parsed network that take dequantized values.

    Those are what int8 was asked for. Transposes, reshapes and casts between are looked through.
    """
    kinds = trt.LayerType
    through = {getattr(kinds, name, None) for name in ("SHUFFLE", "CAST", "IDENTITY")} - {None}  # 8.5 has no CAST
    makers: dict[str, Any] = {}
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    for layer in layers:
        makers.update({layer.get_output(number).name: layer for number in range(layer.num_outputs)})

    def dequantized(tensor: Any) -> bool:
        maker = None if tensor is None else makers.get(tensor.name)
        while maker is not None and maker.type in through:
            maker = makers.get(maker.get_input(0).name)
        return maker is not None and maker.type == kinds.DEQUANTIZE

    return {
        layer.name
        for layer in layers
        if layer.type in (kinds.MATRIX_MULTIPLY, kinds.CONVOLUTION)
        and any(dequantized(layer.get_input(number)) for number in range(layer.num_inputs))
    }


def use_dla(trt: Any, network: Any, config: Any, core: int) -> list[str]:
    """Let a DLA core take what it can, and the GPU the rest.

    Args:
        trt: the tensorrt module.
        network: parsed.
        config: the builder's, which is changed.
        core: number of the core.

    Returns:
        names of the layers that it does not take, without constants.

    Raises:
        UnsupportedError: it takes none.
    """
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    working = [layer for layer in layers if layer.type != trt.LayerType.CONSTANT]
    fallback = [layer.name for layer in working if not config.can_run_on_DLA(layer)]
    if len(fallback) == len(working):
        raise UnsupportedError("none of the graph's layers runs on a DLA; build without --dla-core")
    return fallback
