"""Folders for `run_on_device.py table`: graphs of one node, or such as the stand-in for TensorRT computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from small_graphs import doubler
from standin_bundles import SHAPE

from vitrim.exporter.core.loads import Load
from vitrim.exporter.runtime.bench.profile import FORMAT, Profile, list_files
from vitrim.exporter.runtime.standalone import pack as standalone

DENSE = Load((9.0, 9.0), (9.0, 9.0))
HALVED = Load((9.0, 5.0), (5.0, 5.0), (9,))


def made_profile(**changed: Any) -> Profile:
    """Of a model of two blocks and nine tokens, with one plan of a method."""
    names = ["attention.1.decomposed", "attention.9.decomposed", "mlp.1.decomposed", "mlp.9.decomposed"]
    names += ["dense.decomposed", "frugal.0.decomposed"]
    known: dict[str, Any] = {"model": "small", "tokens": 9, "gmacs": 0.5, "target": "ort-cpu", "precision": "fp32"}
    known |= {"batch": 2, "threads": 1, "counts": (1, 9), "forms": ("decomposed",), "dense": DENSE}
    known |= {"plans": {"frugal": (HALVED,)}, "graphs": dict.fromkeys(names, 40), "files": {}}
    return Profile(format=FORMAT, **(known | changed))


def doubling_folder(folder: Path, **changed: Any) -> Path:
    """A folder whose graphs onnxruntime runs."""
    folder.mkdir()
    profile = made_profile(**changed)
    for name in profile.names:
        (folder / f"{name}.onnx").write_bytes(doubler())
    standalone.write(folder)
    list_files(folder, profile)
    return folder


def standin_folder(folder: Path, seconds: dict[str, float], **changed: Any) -> Path:
    """A folder whose graphs the stand-in for TensorRT takes that long for, by the first part of their names."""
    folder.mkdir()
    profile = made_profile(**({"target": "jetpack-5"} | changed))
    for name in profile.names:
        wait = next(took for start, took in seconds.items() if name.startswith(start))
        graph = {"shape": SHAPE, "scale": 3.0, "wait": wait}
        (folder / f"{name}.onnx").write_text(json.dumps(graph))
    standalone.write(folder)
    list_files(folder, profile)
    return folder
