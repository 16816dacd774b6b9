"""Real lists of kernels that TensorRT for RTX 1.7.1 logged: the quickstart's model, dense, by slicing and by method.

With each the products of the graph, as the ONNX file has them, and the wiring of the network that was built.
"""

from __future__ import annotations

import functools
import json
import lzma
from pathlib import Path
from typing import Any

from vitrim.exporter.core.wiring import Probabilities, Wiring
from vitrim.exporter.runtime.tensorrt.inspector import Layer, read_layers
from vitrim.exporter.runtime.tensorrt.kernels import inspector_json

PLACE = Path(__file__).parent / "data" / "kernels" / "rtx-1.7.json.xz"
GRAPHS = ("dense", "floor", "evit", "ats", "ppt", "tome", "tofu", "frugal", "zero_tprune")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@functools.cache
def _all() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lzma.decompress(PLACE.read_bytes()))
    return found


@functools.cache
def kernel_list(graph: str, precision: str) -> tuple[list[Layer], Wiring]:
    """The layers of an engine, and the wiring of its network."""
    one = _all()[f"{graph}.{precision}"]
    softmaxes = {
        node: Probabilities(values, tuple(others)) for node, (values, others) in one["wiring"]["softmaxes"].items()
    }
    wiring = Wiring(one["wiring"]["parts"], frozenset(one["products"]), softmaxes)
    return read_layers(inspector_json(one["lines"])), wiring
