"""A model run by onnxruntime on the CPU, to look at its numbers: as it is written, or as fast as it goes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from ..core.cores import session_threads
from ..core.errors import UnsupportedError
from .weights import Weights


class Session:
    """An ONNX model that can be called.

    Args:
        model: of static shapes.
        optimized: let onnxruntime rewrite it; else it runs as it is written, which is what a pass is held against.
        weights: where the weights are that the model has beside it; onnxruntime maps their files.

    Attributes:
        shape: of the first input.

    Raises:
        UnsupportedError: onnxruntime refuses the graph.
    """

    def __init__(self, model: onnx.ModelProto, *, optimized: bool = True, weights: Weights | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = session_threads()
        if not optimized:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if weights is not None:
            folder = str(weights.folder)
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
        self._version = onnxruntime.__version__
        try:
            data = model.SerializeToString()
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors share no public base
            raise self._refusal(error) from error
        first = self._session.get_inputs()[0]
        self.input, self.shape = first.name, tuple(first.shape)
        self.outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, feeds: np.ndarray | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name.

        Args:
            feeds: the first input, or inputs by name.

        Raises:
            UnsupportedError: onnxruntime refuses the inputs.
        """
        given = {self.input: feeds} if isinstance(feeds, np.ndarray) else dict(feeds)
        try:
            return dict(zip(self.outputs, self._session.run(self.outputs, given), strict=True))
        except Exception as error:
            raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> UnsupportedError:
        reason = " ".join(str(error).split())[:300]
        return UnsupportedError(f"onnxruntime {self._version} cannot run the graph: {reason}")
