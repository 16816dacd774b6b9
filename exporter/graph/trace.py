"""torch -> ONNX with PyTorch's current (dynamo) exporter: static shapes, no weight copied, metadata inside."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, TypeVar

import onnx
import onnx_ir
import torch

from ..core.errors import UnsupportedError
from .simplify import simplify
from .store import WeightStore
from .weights import goes_aside

OPSET = 20  # the exporter's own default: Gelu and LayerNormalization are still single operators
_OBJECTS = 100_000  # made between two collections

T = TypeVar("T")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporter's prints, log lines and deprecation warnings from the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class Traceable(Protocol):
    """A `torch.nn.Module` that says what it takes and gives: what `vitrim.exporter.pruning.vit` makes.

    Attributes:
        name: for messages.
        image_size: of its input, such as channels, height and width.
    """

    name: str

    @property
    def image_size(self) -> tuple[int, ...]: ...

    def output_names(self) -> list[str]:
        """Names of what `forward` returns, in order."""

    def eval(self) -> Any:
        """The module in eval mode."""


def trace(pruned: Traceable, batch: int, metadata: Mapping[str, Any] | None = None) -> onnx.ModelProto:
    """Export a pruned model with a fixed batch.

    A copy that shares its tensors is exported, so the caller's model is as it was; nothing in it depends on earlier
    calls.

    Args:
        pruned: the model; its `outputs` become the graph's outputs, named by `output_names()`.
        batch: fixed batch size.
        metadata: JSON-able values stored under `vitrim.<key>` in the model's metadata.

    Returns:
        the model with all its weights: input `image` [batch, channels, height, width] float32, opset 20.

    Raises:
        UnsupportedError: PyTorch cannot export the model; its reason in one line.
    """
    return _finished(_exported(pruned, batch), metadata)


def trace_into(
    store: WeightStore, name: str, pruned: Traceable, batch: int, metadata: Mapping[str, Any] | None = None
) -> None:
    """Export a pruned model into a folder; its weights go from PyTorch's tensors to the store's file.

    Args:
        store: that writes the folder.
        name: of the graph's file.
        pruned, batch, metadata: see `trace`.

    Raises:
        UnsupportedError: PyTorch cannot export the model; its reason in one line.
        EnvironmentLackError: the disk refuses.
    """
    _save_into(store, name, _exported(pruned, batch), metadata)


def trace_free_into(store: WeightStore, name: str, part: Traceable, batch: int, least: int) -> None:
    """Export a module of [batch, tokens, width] for any number of tokens; see `trace_into` and `tokens.with_tokens`.

    Args:
        part: its `image_size` is the most tokens, and the width.
        least: the fewest tokens that it takes.
    """
    free = torch.export.Dim("tokens", min=least, max=part.image_size[0])
    _save_into(store, name, _exported(part, batch, ({1: free},)))


def _save_into(store: WeightStore, name: str, model: onnx_ir.Model, metadata: Mapping[str, Any] | None = None) -> None:
    """A traced model into a folder, its large weights into the store's file."""
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or not goes_aside(int(tensor.dtype), tensor.nbytes, store.least):
            continue
        place = store.put(tensor.tobytes())
        shape = onnx_ir.Shape(tensor.shape.numpy())
        value.const_value = onnx_ir.ExternalTensor(
            place.file, place.offset, place.length, tensor.dtype, shape=shape, name=value.name or ""
        )
    store.save(_finished(model, metadata), name)


# timm's attention of windows apart from heads, or of both as one: PyTorch's exporter takes fused attention of four
# dimensions alone.
_OTHER_DIMENSIONS = {
    ("timm.models.hiera", "MaskUnitAttention"),
    ("timm.models.nest", "Attention"),
    ("timm.models.twins", "LocallyGroupedAttn"),
    ("timm.models.vision_transformer_sam", "Attention"),
}


def _exported(pruned: Traceable, batch: int, free: tuple[dict[int, Any], ...] | None = None) -> onnx_ir.Model:
    """What PyTorch's exporter makes; weights are views of the module's tensors. `free` dimensions may be any."""
    fresh = sharing_copy(pruned).eval()
    for module in fresh.modules():
        if (type(module).__module__, type(module).__name__) in _OTHER_DIMENSIONS:
            module.fused_attn = False
    example = torch.zeros(batch, *pruned.image_size)
    try:
        with quiet(), _collecting_less(), _no_stack_traces(), torch.no_grad():
            program = torch.onnx.export(
                fresh,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=pruned.output_names(),
                dynamic_shapes=free,
                verbose=False,
                optimize=False,
            )
            assert program is not None
            simplify(program.model)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UnsupportedError(f"PyTorch {torch.__version__} cannot export {pruned.name}: {reason}") from error
    return program.model


@contextlib.contextmanager
def _collecting_less() -> Iterator[None]:
    """A graph is many small objects: looking through all of them for garbage often costs a tenth of an export."""
    before = gc.get_threshold()
    gc.set_threshold(max(_OBJECTS, before[0]) if before[0] else 0, *before[1:])  # 0: never
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextlib.contextmanager
def _no_stack_traces() -> Iterator[None]:
    """Where each node comes from in Python takes a tenth of an export to find, and is stripped in the end."""
    config: Any = getattr(torch.fx, "config", None)
    if not hasattr(config, "do_not_emit_stack_traces"):  # an older PyTorch
        yield
        return
    before, config.do_not_emit_stack_traces = config.do_not_emit_stack_traces, True
    try:
        yield
    finally:
        config.do_not_emit_stack_traces = before


def sharing_copy(module: T) -> T:
    """A copy of a module with its own mode, hooks and attributes, and the same parameters and buffers."""
    held = (*module.parameters(), *module.buffers())  # type: ignore[attr-defined]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in held})


def _finished(exported: onnx_ir.Model, metadata: Mapping[str, Any] | None) -> onnx.ModelProto:
    model = onnx_ir.to_proto(exported)
    strip_exporter_notes(model)
    for key, value in (metadata or {}).items():
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        model.metadata_props.add(key=f"vitrim.{key}", value=text)
    return model


def strip_exporter_notes(model: onnx.ModelProto) -> None:
    """Remove stack traces and paths of the exporting machine, and value shapes that later passes would outdate."""
    del model.graph.value_info[:]
    del model.functions[:]
    for holder in (model, model.graph, *model.graph.node):
        holder.doc_string = ""
    for node in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del node.metadata_props[:]
    del model.graph.metadata_props[:]
