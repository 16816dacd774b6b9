"""int8 for TensorRT with the ranges, and the choice of products, of NVIDIA's ModelOpt (the extra `modelopt`).

::

    float32 graph + images  --ModelOpt, in a process of its own-->  its graph of opset 19 or later, thrown away but for
    float32 graph + the scales of its activations  --`quantize.with_qdq`-->  the graph that is returned

ModelOpt measures, and leaves products in float32 that are too small for int8 to pay in TensorRT (a side of the weight
under 16). The pairs are written here: ModelOpt raises the opset, also where TensorRT 8.x takes none above 17. Its graph
and this one answer alike to the last bit (DeiT-Ti on 120 photos, ModelOpt 0.47).

It runs in a process of its own because importing it replaces parts of onnxruntime's quantizer, which later calls in
this one would meet, and because it prints.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ...core.errors import EnvironmentLackError, InputError, UnsupportedError
from ..shapes import with_shapes
from ..surgery import copy_of
from .qdq import with_qdq
from .ranges import Calibrator, batches_of

_METHODS: Mapping[str, str] = {"minmax": "max", "entropy": "entropy"}
_LARGEST = 127  # of symmetric int8
_LACK = (
    "precision.tool: ModelOpt cannot be imported ({reason}): pip install 'vitrim[modelopt]' in an environment of its "
    "own, because it replaces onnxruntime, or take precision.tool=onnxruntime"
)
_CHILD = """
import json, sys
import numpy as np
try:
    from modelopt.onnx.quantization.quantize import quantize
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)
quantize(calibration_data=np.load("images.npy"), **json.load(open("options.json")))
"""
_NO_IMPORT = 3


def with_modelopt(
    model: onnx.ModelProto, products: Collection[str], pieces: Iterable[np.ndarray], calibrator: Calibrator
) -> onnx.ModelProto:
    """Symmetric Q/DQ pairs around some products, as `with_qdq` writes them, with ModelOpt's scales.

    Args:
        model: float32, of one input, with inferred shapes; it is not changed.
        products: names of those that may be quantized, of `quantizable`; ModelOpt may leave some of them in float32.
        pieces: calibration images, [n, ...] as the graph takes them.
        calibrator: `minmax` or `entropy`.

    Returns:
        the model with inferred shapes, its opset, names and metadata as they were.

    Raises:
        InputError: ModelOpt has no such calibrator.
        EnvironmentLackError: it is not installed.
        UnsupportedError: it fails on this graph; its reason in one line.
    """
    if calibrator not in _METHODS:
        raise InputError(
            f"precision.calibrator: ModelOpt has no {calibrator}; take minmax or entropy, or precision.tool=onnxruntime"
        )
    if importlib.util.find_spec("modelopt") is None:
        raise EnvironmentLackError(_LACK.format(reason="no module named modelopt"))
    if not products:
        return with_shapes(copy_of(model))
    scales = _scales(model, products, pieces, _METHODS[calibrator])
    return with_qdq(model, _ranges(model, scales), list(scales), "tensorrt")


def _scales(
    model: onnx.ModelProto, products: Collection[str], pieces: Iterable[np.ndarray], method: str
) -> dict[str, np.ndarray]:
    """By product that ModelOpt quantizes: the scale of its activation."""
    plain, names = _numbered(model)
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    with tempfile.TemporaryDirectory(prefix="vitrim-") as made:
        folder = Path(made).resolve()
        onnx.save(plain, folder / "float.onnx")
        np.save(folder / "images.npy", np.concatenate(list(batches_of(pieces, shape))))
        options = {
            "onnx_path": str(folder / "float.onnx"),
            "output_path": str(folder / "int8.onnx"),
            "quantize_mode": "int8",
            "calibration_method": method,
            "calibration_eps": ["cpu"],
            "nodes_to_quantize": [f"{re.escape(names[product])}$" for product in products],  # it takes patterns
            "disable_mha_qdq": True,
            "high_precision_dtype": "fp32",
            "log_level": "ERROR",
        }
        (folder / "options.json").write_text(json.dumps(options))
        _run(folder)
        quantized = gs.import_onnx(onnx.load(folder / "int8.onnx"))
    nodes = {node.name: node for node in quantized.nodes}
    lost = [product for product in products if names[product] not in nodes]
    if lost:
        raise UnsupportedError(f"ModelOpt lost the product {lost[0]}; take precision.tool=onnxruntime")
    found = {product: _scale(nodes[names[product]]) for product in products}
    return {product: scale for product, scale in found.items() if scale is not None}


def _numbered(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A copy whose nodes have names of one length, and those names by the old ones.

    ModelOpt takes the names that it leaves out for patterns of how a name begins: without `node_MatMul_1` there would
    be no `node_MatMul_12` either.
    """
    copied = copy_of(model)
    names = {}
    for index, node in enumerate(copied.graph.node):
        names[node.name] = node.name = f"node{index:06}"
    return copied, names


def _run(folder: Path) -> None:
    """ModelOpt on the files of a folder; all that it prints, and what it forgets to remove, stays there."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), "PYTHONWARNINGS": "ignore"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode == 0 and (folder / "int8.onnx").exists():
        return
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    reason = lines[-1][:300] if lines else f"it ended with code {done.returncode}"
    if done.returncode == _NO_IMPORT:
        raise EnvironmentLackError(_LACK.format(reason=reason))
    raise UnsupportedError(f"ModelOpt fails on this graph: {reason}; take precision.tool=onnxruntime")


def _scale(product: gs.Node) -> np.ndarray | None:
    """The scale behind which a product reads its activation, or None where it reads it as it is."""
    makers = product.inputs[0].inputs
    if not makers or makers[0].op != "DequantizeLinear":
        return None
    return np.asarray(makers[0].inputs[1].values, np.float32).reshape(())


def _ranges(model: onnx.ModelProto, scales: Mapping[str, np.ndarray]) -> object:
    """onnxruntime's `TensorsData` that lead to these scales again."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorsData

    reads = {node.name: node.input[0] for node in model.graph.node}
    ends = {reads[product]: np.float32(_LARGEST) * scale for product, scale in scales.items()}
    return TensorsData(CalibrationMethod.MinMax, {tensor: (-end, end) for tensor, end in ends.items()})
