"""What activations a float graph has on real images: for int8 scales, and to see what half precision cannot hold.

Images are streamed: onnxruntime's calibrators keep every activation that they are given until they have made their
histogram, so they are given a few images at a time.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx.helper
from onnx import TensorProto

from ...core.errors import InputError
from ..session import Session
from ..surgery import copy_of
from ..weights import Weights

Calibrator = Literal["minmax", "percentile", "entropy"]
_REDUCTIONS = ("Max", "Min", "Sum")
_CHUNK = 8  # images between two updates of a histogram


@dataclass(frozen=True)
class Extent:
    """How large an activation gets.

    Attributes:
        least: its largest absolute value in the batch where that is smallest; batches of nothing but zeros do not
            count, and 0 where there is no other.
        largest: its largest absolute value on all images.
    """

    least: float
    largest: float


def extents_of(
    model: onnx.ModelProto, images: Iterable[np.ndarray], weights: Weights | None = None
) -> dict[str, Extent]:
    """How large every float32 activation gets, measured inside the graph.

    Args:
        model: float32, quantized or not, with inferred shapes; it is not changed.
        images: pieces of [n, ...] as the graph takes them.
        weights: where the weights are that the model has beside it.

    Raises:
        InputError: an activation is NaN or infinite already in float32; it is named.
    """
    watched = _Watched(model, weights)
    found = dict.fromkeys(watched.names, Extent(0.0, 0.0))
    for batch in batches_of(images, watched.session.shape):
        for name, value in watched(batch).items():
            before = found[name]
            least = min(value, before.least) if value and before.least else value or before.least
            found[name] = Extent(least, max(value, before.largest))
    return found


class _Watched:
    """A float32 graph that gives out the largest absolute value of each of its activations."""

    def __init__(self, model: onnx.ModelProto, weights: Weights | None = None) -> None:
        watched = copy_of(model)
        graph, node = watched.graph, onnx.helper.make_node
        del graph.output[:]
        types = {
            value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)
        }
        written = [name for each in graph.node for name in each.output]
        self.names = [name for name in written if types.get(name) == TensorProto.FLOAT]
        # Last first: onnxruntime runs what was added last first, and so can give back an activation before the next.
        for name in reversed(self.names):
            # The sum tells what the extremes pass over, NaN, and what is infinite.
            for end in _REDUCTIONS:
                graph.node.append(node(f"Reduce{end}", [name], [f"{name}/{end}"], keepdims=0))
                graph.output.append(onnx.helper.make_tensor_value_info(f"{name}/{end}", TensorProto.FLOAT, []))
        self.session = Session(watched, weights=weights)

    def __call__(self, batch: np.ndarray) -> dict[str, float]:
        """By activation, on one batch.

        Raises:
            InputError: one is NaN or infinite.
        """
        seen = self.session(batch)
        for name in self.names:
            if not np.isfinite(seen[f"{name}/Sum"]):
                raise InputError(f"the activation {name} holds NaN or Inf on the calibration images, in float32")
        return {name: float(max(seen[f"{name}/Max"], -seen[f"{name}/Min"])) for name in self.names}


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
    operators: Sequence[str] = ("MatMul", "Gemm"),
) -> Any:
    """onnxruntime's `TensorsData`: lowest and highest value of what nodes of some operators read and write.

    Args:
        model: float32, of one input.
        images: pieces of [n, ...] as the graph takes them.
        calibrator: smallest and largest value; the range of a share of the values; the range of least divergence.
        percentile: share of the values in percent, for `percentile`.
        symmetric: the same range on both sides of zero.
        operators: those.

    Raises:
        InputError: an activation is NaN or infinite, which the calibrators pass over; it is named.
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
    watched = _Watched(model)

    def finite(batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for batch in batches:
            watched(batch)
            yield batch

    with (
        tempfile.TemporaryDirectory(prefix="vitrim-") as folder,
        contextlib.redirect_stdout(io.StringIO()),  # the calibrators print there
    ):
        file = Path(folder) / "float.onnx"
        onnx.save(model, file)
        made = create_calibrator(
            file,
            list(operators),
            str(Path(folder) / "augmented.onnx"),
            calibrate_method=method,
            extra_options=options,
        )
        for chunk in _chunks(
            finite(batches_of(images, watched.session.shape)), max(1, _CHUNK // watched.session.shape[0])
        ):
            made.collect_data(_Images(source.name, chunk))
        return made.compute_data()


def batches_of(images: Iterable[np.ndarray], shape: Sequence[int]) -> Iterator[np.ndarray]:
    """Whole batches; the last one is filled up by repeating its images."""
    for piece in images:
        for start in range(0, len(piece), shape[0]):
            yield np.resize(piece[start : start + shape[0]], tuple(shape))


def _chunks(batches: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    while chunk := list(itertools.islice(batches, size)):
        yield chunk
