"""What activations a float graph has on real images: for int8 scales, and to see what half precision would overflow.

Images are streamed: onnxruntime's calibrators keep every activation that they are given until they have made their
histogram, so they are given a few images at a time.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx.helper
from onnx import TensorProto

from ..errors import InputError
from ..runtime.runners import OrtRunner

Calibrator = Literal["minmax", "percentile", "entropy"]
_CHUNK = 8  # images between two updates of a histogram


def largest_activations(model: onnx.ModelProto, images: Iterable[np.ndarray]) -> dict[str, float]:
    """Largest absolute value of every float32 activation, measured inside the graph.

    Args:
        model: float32, with inferred shapes; it is not changed.
        images: pieces of [n, ...] as the graph takes them.

    Raises:
        InputError: an activation is NaN or infinite already in float32; it is named.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    graph = watched.graph
    del graph.output[:]
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    names = [name for node in graph.node for name in node.output if types.get(name) == TensorProto.FLOAT]
    for name in names:
        graph.node.append(onnx.helper.make_node("Abs", [name], [f"{name}/abs"]))
        graph.node.append(onnx.helper.make_node("ReduceMax", [f"{name}/abs"], [f"{name}/largest"], keepdims=0))
        graph.output.append(onnx.helper.make_tensor_value_info(f"{name}/largest", TensorProto.FLOAT, []))
    runner = OrtRunner(watched.SerializeToString())
    largest = dict.fromkeys(names, 0.0)
    for piece in images:
        for start in range(0, len(piece), runner.batch):
            batch = np.resize(piece[start : start + runner.batch], runner.shape)
            seen = runner(batch)
            for name in names:
                value = float(seen[f"{name}/largest"])
                if not np.isfinite(value):
                    raise InputError(f"the activation {name} is {value} on the calibration images, already in float32")
                largest[name] = max(largest[name], value)
    return largest


class _Images:
    """onnxruntime's reader over a few batches."""

    def __init__(self, name: str, batches: list[np.ndarray]) -> None:
        self.feeds = iter([{name: batch} for batch in batches])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """One feed, or None at the end."""
        return next(self.feeds, None)


def quantization_ranges(
    model: onnx.ModelProto,
    images: Iterable[np.ndarray],
    calibrator: Calibrator,
    *,
    percentile: float = 99.999,
    symmetric: bool = False,
) -> Any:
    """onnxruntime's `TensorsData`: lowest and highest value of what every MatMul reads and writes.

    Args:
        model: float32, of one input.
        images: pieces of [n, ...] as the graph takes them.
        calibrator: smallest and largest value; the range of a share of the values; the range of least divergence.
        percentile: share of the values in percent, for `percentile`.
        symmetric: the same range on both sides of zero.
    """
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    method = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }[calibrator]
    options: dict[str, Any] = {"symmetric": symmetric}
    if calibrator == "percentile":
        options["percentile"] = percentile
    source = model.graph.input[0]
    shape = [dim.dim_value for dim in source.type.tensor_type.shape.dim]
    with tempfile.TemporaryDirectory(prefix="vitrim-") as folder:
        file = Path(folder) / "float.onnx"
        onnx.save(model, file)
        made = create_calibrator(
            file,
            ["MatMul", "Gemm"],
            str(Path(folder) / "augmented.onnx"),
            calibrate_method=method,
            extra_options=options,
        )
        for chunk in _chunks(whole_batches(images, shape), max(1, _CHUNK // shape[0])):
            made.collect_data(_Images(source.name, chunk))
        return made.compute_data()


def whole_batches(images: Iterable[np.ndarray], shape: list[int]) -> Iterator[np.ndarray]:
    """Whole batches; the last one is filled up by repeating its images."""
    for piece in images:
        for start in range(0, len(piece), shape[0]):
            yield np.resize(piece[start : start + shape[0]], shape)


def _chunks(batches: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while chunk := list(itertools.islice(batches, size)):
        yield chunk


def overflowing(
    largest: dict[str, float], writers: dict[str, str], limit: float, wide: Collection[str]
) -> dict[str, float]:
    """Nodes whose activations come too near to what half precision holds, with their largest value.

    Args:
        largest: as `largest_activations` returns it.
        writers: by activation, the name of the node that writes it.
        limit: largest absolute value that may be.
        wide: nodes that stay in float32 anyway.
    """
    found: dict[str, float] = {}
    for tensor, value in largest.items():
        node = writers[tensor]
        if value > limit and node not in wide:
            found[node] = max(value, found.get(node, 0.0))
    return found
