"""One graph, parsed and built in memory by the TensorRT of this machine, and what was said to it. Torch-free.

`python -c "from vitrim.exporter.runtime.tensorrt.answer import serve; serve('rtx')"` answers requests, see `verdict`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from .. import verdict
from ..verdict import Answer
from .family import Family, family_named
from .inspector import onnx_nodes
from .network import open_parser
from .refusals import of_builder, of_parser
from .rtx_build import by_rtx
from .serializer import Settings
from .versions import import_tensorrt, listen, typing_for, version_of

_BATCH, _CHANNELS, _SIDE, _LENGTH = 1, 3, 224, 128  # sizes that stand in for open ones


def answer(model: bytes, place: str, family: Family) -> Answer:
    """Parse and build a model; nothing is written.

    Args:
        model: serialized; its large weights may be in files.
        place: the file that it is of, beside which those lie.
        family: one that builds without a GPU.

    Raises:
        EnvironmentLackError: it is not there.
    """
    began, trt = time.perf_counter(), import_tensorrt(family)
    messages = listen(trt)
    builder = trt.Builder(messages)
    typing = typing_for(version_of(trt.__version__), "fp32", family)
    parts = open_parser(trt, builder, messages, typing, family)
    network, parser, title = parts.network, parts.parser, family.versioned(trt)
    if not parser.parse(model, place):
        refused = of_parser(parser.get_error(index) for index in range(parser.num_errors))
        unread = verdict.Refusal("parser", "graph", "", "the file cannot be read as an ONNX graph")
        return Answer(title, refused=tuple(refused or [unread]), seconds=_since(began), warnings=_said(messages))
    assumed = _open_sizes(network)
    settings = Settings(change=lambda builder, network, config: _profile(builder, network, config, assumed))
    engine, reason = b"", ""
    try:
        engine = by_rtx(trt, parts, settings)
    except Exception as error:  # TensorRT's binding raises types of its own
        reason = " ".join(str(error).split())
    refused = [] if engine else of_builder(messages.errors or [reason], _nodes(network))
    return Answer(
        title,
        parsed=True,
        built=bool(engine),
        refused=tuple(refused),
        kernels=len(messages.kernels) if engine else 0,
        size=len(engine),
        seconds=_since(began),
        assumed=assumed or None,
        warnings=_said(messages),
    )


def _since(began: float) -> float:
    return round(time.perf_counter() - began, 3)


def _said(messages: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(messages.warnings))


def _inputs(network: Any) -> list[Any]:
    return [network.get_input(index) for index in range(network.num_inputs)]


def _open_sizes(network: Any) -> dict[str, tuple[int, ...]]:
    """Shapes for inputs that leave sizes open, and values (ones) for those that decide sizes.

    An open first size is 1, further ones of images [N, C, H, W] are 3, 224 and 224, any others 128; a name that was
    met before keeps its size.
    """
    named: dict[str, int] = {}
    found = {}
    for tensor in _inputs(network):
        shape = tuple(tensor.shape)
        if tensor.is_shape_tensor:
            found[tensor.name] = (1,) * (shape[0] if shape else 1)
        elif -1 in shape:
            found[tensor.name] = tuple(
                named.setdefault(tensor.get_dimension_name(axis) or f"{tensor.name} {axis}", _size(axis, len(shape)))
                if size == -1
                else size
                for axis, size in enumerate(shape)
            )
    return found


def _size(axis: int, rank: int) -> int:
    if axis == 0:
        return _BATCH
    return (_CHANNELS if axis == 1 else _SIDE) if rank == 4 else _LENGTH


def _profile(builder: Any, network: Any, config: Any, assumed: Mapping[str, tuple[int, ...]]) -> None:
    """An optimization profile of those sizes alone, where there are any."""
    if not assumed:
        return
    profile = builder.create_optimization_profile()
    for tensor in _inputs(network):
        if tensor.name in assumed:
            settle = profile.set_shape_input if tensor.is_shape_tensor else profile.set_shape
            settle(tensor.name, *[assumed[tensor.name]] * 3)
    config.add_optimization_profile(profile)


def _nodes(network: Any) -> dict[str, str]:
    """ONNX nodes by the names of their layers and of the tensors that those make; inputs by their own."""
    found = {tensor.name: tensor.name for tensor in _inputs(network)}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        origin = onnx_nodes(layer.metadata)
        if origin:
            names = (layer.name, *(layer.get_output(number).name for number in range(layer.num_outputs)))
            found.update(dict.fromkeys((*names, origin[0]), origin[0]))
    return found


def serve(family: str) -> None:
    """Answer requests from standard input until it ends, see `verdict.serve`."""
    asked = family_named(family)
    verdict.serve(lambda model, place: answer(model, place, asked))
