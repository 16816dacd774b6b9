"""Models that can be called with numpy arrays. Torch-free."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..core.cores import session_threads
from ..core.errors import EnvironmentLackError, InputError, excerpt
from ..core.inputs import InputKind, require_file
from ..core.preprocess import Preprocess, to_pixels
from .providers import named

if TYPE_CHECKING:
    Outputs = dict[str, np.ndarray]
else:
    Outputs = dict  # Python 3.8, which run_on_device.py serves, has no dict[...]

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
_INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
_NUMBERS = {f"tensor({kind})" for kind in ("bool", "double", "float", "float16", *_INTEGERS)}
_PROVIDER_HELP = {
    "CUDAExecutionProvider": "pip install 'vitrim[gpu]' in an environment without plain onnxruntime",
    "TensorrtExecutionProvider": "install onnxruntime-gpu and TensorRT's libraries; `vitrim doctor` names their pair",
}


class Runner(Protocol):
    """A model that takes exactly one batch of images; `run_all` takes any number.

    Attributes:
        name: shown in tables, such as `onnxruntime-cpu`.
        batch: images per call.
        shape: of a call's images: [batch, channels, height, width], or [batch, height, width, channels] for pixels.
        dtype: of those: float32 or float16, or uint8 for pixels.
        conditions: what a reader of a benchmark should know of how it runs, as plain data.
    """

    name: str
    batch: int
    shape: tuple[int, ...]
    dtype: np.dtype
    conditions: dict[str, Any]

    def __call__(self, image: np.ndarray) -> Outputs:
        """Run one batch.

        Raises:
            InputError: the image has another shape or type, or the graph fails on it.
        """


def check_image(runner: Runner, image: np.ndarray) -> None:
    """Refuse what is no batch of a runner.

    Raises:
        InputError: it has another shape or type.
    """
    if image.shape != runner.shape or image.dtype != runner.dtype:
        wanted = f"{runner.dtype} {list(runner.shape)}"
        raise InputError(f"{runner.name} takes {wanted}, but got {image.dtype} {list(image.shape)}")


class OrtRunner:
    """onnxruntime, as a `Runner`.

    Args:
        model: path or serialized ONNX.
        providers: execution providers in order; a missing one, or one that cannot start, is an error and no silent
            fallback.
        threads: intra-op threads; None takes all cores.
        name: shown in tables.
        options: of each provider, see `providers.provider_options`; None for none.
        counted: where onnxruntime's profile goes, a path without its ending; None: it counts nothing.

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
        options: Sequence[Mapping[str, str]] | None = None,
        counted: str | os.PathLike[str] | None = None,
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
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 4
        settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        settings.intra_op_num_threads = session_threads(threads)
        # Idle pools of several sessions in one process would spin into each other.
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        if counted is not None:
            settings.enable_profiling, settings.profile_file_prefix = True, os.fspath(counted)
        chosen = named(providers, options) if options else list(providers)
        where = "the ONNX model" if isinstance(model, bytes) else os.fspath(model)
        if not isinstance(model, bytes):
            require_file(model, InputKind.GRAPH)
        try:
            source = model if isinstance(model, bytes) else str(Path(model))
            with contextlib.redirect_stdout(io.StringIO()):  # it prints there when a provider does not start
                self.session = onnxruntime.InferenceSession(source, settings, providers=chosen)
        except Exception as error:  # onnxruntime raises types of its own, one a status code
            reason = excerpt(str(error), 200)
            raise InputError(f"onnxruntime cannot load {where}: {reason}") from error
        started = self.session.get_providers()
        if providers[0] not in started:  # onnxruntime only logs it when a provider's libraries do not load
            raise EnvironmentLackError(
                f"onnxruntime {onnxruntime.__version__} has {providers[0]} but cannot start it (it fell back to "
                f"{', '.join(started)}): its libraries (CUDA, cuDNN, TensorRT) are missing or of other versions"
            )
        self.session.disable_fallback()  # else a run that fails is repeated on another provider without a word
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or not inputs[0].shape or not all(isinstance(size, int) for size in inputs[0].shape):
            found = excerpt(", ".join(f"{value.name} {value.shape}" for value in inputs), 200) or "none"
            raise InputError(f"{where}: needs one input of static shape, but has {found}")
        first = inputs[0]
        if first.type not in _TYPES:
            raise InputError(f"{where}: the input {first.name} is a {first.type}; images are {', '.join(_TYPES)}")
        self.dtype = np.dtype(_TYPES[first.type])
        self.input = first.name
        self.shape = tuple(int(size) for size in first.shape)
        self.batch = self.shape[0]
        outputs = self.session.get_outputs()
        strange = [f"{output.name} a {output.type}" for output in outputs if output.type not in _NUMBERS]
        if strange:
            raise InputError(f"{where}: the output {excerpt(strange[0])}, but outputs are tensors of numbers")
        self.outputs = [output.name for output in outputs]
        short = providers[0].replace("ExecutionProvider", "").lower()
        self.name = name or f"onnxruntime-{short}"
        self.conditions: dict[str, Any] = {"providers": started}

    def __call__(self, image: np.ndarray) -> Outputs:
        """Run one batch.

        Raises:
            InputError: the image has another shape or type, or the graph fails on it.
        """
        check_image(self, image)
        try:
            values = self.session.run(self.outputs, {self.input: image})
        except Exception as error:
            reason = excerpt(str(error), 200)
            raise InputError(f"{self.name} fails to run the graph: {reason}") from error
        return dict(zip(self.outputs, values, strict=True))


def whole_batches(count: int, batch: int) -> int:
    """The least number of images that is not below `count` and fills its batches."""
    return -(-count // batch) * batch


def on_images(runner: Runner, preprocess: Preprocess) -> Callable[[np.ndarray], Outputs]:
    """A runner that takes preprocessed images [batch, channels, height, width] float32, whatever its graph takes."""
    if runner.dtype != np.uint8:
        return runner
    return lambda image: runner(to_pixels(image, preprocess))


def run_all(
    runner: Callable[..., Outputs],
    images: np.ndarray,
    batch: int,
    progress: Callable[[int, int], None] | None = None,
) -> Outputs:
    """Run any number of images through a fixed batch; the last one is filled up by repeating an image.

    Args:
        runner: takes [batch, ...] arrays.
        images: [n, channels, height, width] float32, or [n, height, width, channels] uint8.
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
        outputs = runner(np.ascontiguousarray(filled))
        short = [name for name, value in outputs.items() if value.ndim == 0 or len(value) != batch]
        if short:
            raise InputError(f"the output {excerpt(short[0])} has no row for every image of a batch of {batch}")
        parts.append({name: value[: len(piece)] for name, value in outputs.items()})
        if progress:
            progress(min(start + batch, len(images)), len(images))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
