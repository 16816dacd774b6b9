"""torch -> ONNX with PyTorch's current (dynamo) exporter: static shapes, one file, metadata inside."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import onnx
import torch

from ..core.errors import UnsupportedError
from ..core.files import atomic_path

OPSET = 20  # the exporter's own default: Gelu and LayerNormalization are still single operators
_SINGLE_FILE_LIMIT = 2**31 - 2**24  # protobuf's 2 GB, less room for the graph itself


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
        image_size: channels, height and width of its input.
    """

    name: str
    image_size: tuple[int, int, int]

    def output_names(self) -> list[str]:
        """Names of what `forward` returns, in order."""

    def eval(self) -> Any:
        """The module in eval mode."""


def trace(pruned: Traceable, batch: int, metadata: Mapping[str, Any] | None = None) -> onnx.ModelProto:
    """Export a pruned model with a fixed batch.

    A copy is exported, so the caller's model is as it was; nothing in it depends on earlier calls.

    Args:
        pruned: the model; its `outputs` become the graph's outputs, named by `output_names()`.
        batch: fixed batch size.
        metadata: JSON-able values stored under `vitrim.<key>` in the model's metadata.

    Returns:
        the model: input `image` [batch, channels, height, width] float32, opset 20.

    Raises:
        UnsupportedError: PyTorch cannot export the model; its reason in one line.
    """
    fresh = copy.deepcopy(pruned).eval()
    example = torch.zeros(batch, *pruned.image_size)
    try:
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                fresh,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=pruned.output_names(),
                verbose=False,
            )
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UnsupportedError(f"PyTorch {torch.__version__} cannot export {pruned.name}: {reason}") from error
    assert program is not None
    model = program.model_proto
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


def save(model: onnx.ModelProto, path: str | os.PathLike[str]) -> None:
    """Write one file, atomically; past protobuf's 2 GB the weights go to `<name>.data` beside it.

    Raises:
        EnvironmentLackError: the disk refuses.
    """
    with atomic_path(path) as temporary:
        if model.ByteSize() < _SINGLE_FILE_LIMIT:
            temporary.write_bytes(model.SerializeToString())
        else:
            onnx.save_model(
                model,
                temporary,
                save_as_external_data=True,
                all_tensors_to_one_file=True,
                location=os.path.basename(path) + ".data",
            )


def add_metadata(source: Path, target: Path, texts: Mapping[str, str]) -> None:
    """Copy a graph file and the weights beside it, with more metadata; the weights are not parsed.

    A protobuf message that follows another adds its repeated fields to it.
    """
    more = onnx.ModelProto()
    for key, text in texts.items():
        more.metadata_props.add(key=key, value=text)
    shutil.copyfile(source, target)
    with open(target, "ab") as stream:
        stream.write(more.SerializeToString())
    data = source.with_name(source.name + ".data")
    if data.exists():
        shutil.copyfile(data, target.with_name(data.name))
