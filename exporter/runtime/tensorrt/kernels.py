"""The list of kernels that a builder logs, as the engine inspector would write it. Torch-free.

TensorRT for RTX cannot load an engine without a GPU, so its inspector is out of reach where engines are built. But at
the detail that vitrim builds with, the builder logs a line for every kernel, with what the inspector would say of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

_HEAD = re.compile(r"Name: (.*?), LayerType: (\w+), Inputs: ")
_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: (\[[\d,]*\]), .*?Datatype: (\w+), Format: (.*?) \}")
_TACTIC = re.compile(r"TacticName: ([^,]*)")
_METADATA = re.compile(r"Metadata: (.*)$")
_ORDER = {"signal", "wait"}  # between two streams of one engine: listed with the kernels, but none themselves


def inspector_json(lines: Iterable[str]) -> str:
    """What `EngineInspector.get_engine_information` would say of an engine, see `inspector.read_layers`.

    Args:
        lines: of the builder's log, such as `versions.listen(...).kernels`; what is no kernel is left out.
    """
    heads = ((line, _kernel(line)) for line in lines)
    return json.dumps({"Layers": [_layer(line, head) for line, head in heads if head is not None]})


def is_kernel(line: str) -> bool:
    """Whether a line of the builder's log is about a kernel."""
    return _kernel(line) is not None


def _kernel(line: str) -> re.Match[str] | None:
    """The name and kind of a kernel that a line is about."""
    head = _HEAD.match(line)
    return None if head is None or head[2] in _ORDER else head


def _layer(line: str, head: re.Match[str]) -> dict[str, Any]:
    left, _, right = line.partition(", Outputs: [")
    tactic, metadata = _TACTIC.search(right), _METADATA.search(right)
    return {
        "Name": head[1],
        "LayerType": head[2],
        "Inputs": _tensors(left.partition("], Constants: [")[0]),
        "Outputs": _tensors(right),
        "TacticName": tactic[1].strip() if tactic else "",
        "Metadata": metadata[1] if metadata else "",
    }


def _tensors(text: str) -> list[dict[str, Any]]:
    return [
        {"Name": name, "Dimensions": json.loads(shape), "Datatype": kind, "Format": form}
        for name, shape, kind, form in _TENSOR.findall(text)
    ]
