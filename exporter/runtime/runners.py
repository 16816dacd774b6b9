"""Models that can be called with numpy arrays. Torch-free.

A runner has a `name`, a fixed `batch`, and takes exactly one batch of images; `run_all` takes any number.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import EnvironmentLackError, InputError

Outputs = dict[str, np.ndarray]

_PROVIDER_HELP = {
    "CUDAExecutionProvider": "pip install 'vitrim[gpu]' in an environment without plain onnxruntime",
    "TensorrtExecutionProvider": "install onnxruntime-gpu and TensorRT's libraries",
}


class Runner(Protocol):
    """Anything that maps one batch of images to named outputs."""

    name: str
    batch: int

    def __call__(self, image: np.ndarray) -> Outputs:
        """Run [batch, channels, height, width] float32 images."""


class OrtRunner:
    """onnxruntime behind the runner interface.

    Args:
        model: path or serialized ONNX.
        providers: execution providers in order; a missing one is an error, not a silent fallback.
        threads: intra-op threads; None takes all cores.
        name: shown in tables.

    Raises:
        InputError: the file is not a whole ONNX model, or its shapes are not static.
        EnvironmentLackError: onnxruntime or a provider is missing.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        threads: int | None = None,
        name: str | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EnvironmentLackError("onnxruntime is not installed: pip install onnxruntime") from error
        available = onnxruntime.get_available_providers()
        missing = [provider for provider in providers if provider not in available]
        if missing:
            hint = _PROVIDER_HELP.get(missing[0], "install an onnxruntime build that has it")
            raise EnvironmentLackError(
                f"onnxruntime {onnxruntime.__version__} here has no {missing[0]} (only {', '.join(available)}): {hint}"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        if threads:
            options.intra_op_num_threads = threads
        # Idle pools of several sessions in one process would spin into each other.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        where = "the ONNX model" if isinstance(model, bytes) else os.fspath(model)
        try:
            source = model if isinstance(model, bytes) else str(Path(model))
            self.session = onnxruntime.InferenceSession(source, options, providers=list(providers))
        except Exception as error:  # onnxruntime raises types of its own, one a status code
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"onnxruntime cannot load {where}: {reason}") from error
        first = self.session.get_inputs()[0]
        if len(self.session.get_inputs()) != 1 or not all(isinstance(size, int) for size in first.shape):
            raise InputError(f"{where}: needs one input of static shape, but has {first.name} {first.shape}")
        self.input = first.name
        self.shape = tuple(int(size) for size in first.shape)
        self.batch = self.shape[0]
        self.outputs = [output.name for output in self.session.get_outputs()]
        short = providers[0].removesuffix("ExecutionProvider").lower()
        self.name = name or f"onnxruntime-{short}"

    def __call__(self, image: np.ndarray) -> Outputs:
        """Run one batch.

        Raises:
            InputError: the image has another shape or type.
        """
        if image.shape != self.shape or image.dtype != np.float32:
            raise InputError(f"{self.name} takes float32 {list(self.shape)}, but got {image.dtype} {list(image.shape)}")
        values = self.session.run(self.outputs, {self.input: image})
        return dict(zip(self.outputs, values, strict=True))


def run_all(
    runner: Callable[..., Outputs],
    images: np.ndarray,
    batch: int,
    progress: Callable[[int, int], None] | None = None,
) -> Outputs:
    """Run any number of images through a fixed batch; the last one is filled up by repeating an image.

    Args:
        runner: takes [batch, ...] arrays.
        images: [n, channels, height, width] float32.
        batch: the runner's batch.
        progress: called with (images done, images).

    Returns:
        by output, [n, ...].
    """
    if len(images) == 0:
        raise InputError("there are no images to run")
    parts: list[Outputs] = []
    for start in range(0, len(images), batch):
        piece = images[start : start + batch]
        filled = (
            np.concatenate([piece, np.repeat(piece[-1:], batch - len(piece), axis=0)]) if len(piece) < batch else piece
        )
        parts.append({name: value[: len(piece)] for name, value in runner(np.ascontiguousarray(filled)).items()})
        if progress:
            progress(min(start + batch, len(images)), len(images))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
