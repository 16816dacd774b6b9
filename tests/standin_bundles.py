"""Bundles whose graphs the stand-in for TensorRT computes, and the stand-in for libcudart, compiled."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vitrim.exporter.runtime.bundles.manifest import write_manifest
from vitrim.exporter.runtime.standalone import pack as standalone

STANDIN = Path(__file__).parent / "exporter" / "runtime" / "standin"
SHAPE = [2, 4, 2, 2]


def compiled(source: str, made: Path) -> Path:
    """A stand-in that is written in C; the test is skipped where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip(f"no C compiler here for the stand-in {source}")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(STANDIN / source)]
    subprocess.run(command, check=True)
    return made


def compiled_cudart(folder: Path) -> Path:
    """The stand-in for libcudart; one for the driver lies beside it."""
    compiled("libcuda.c", folder / "libcuda.so.1")
    return compiled("cudart.c", folder / "libcudart.so.13")


def standin_environment(cudart: Path, scratch: Path, version: str) -> dict[str, str]:
    """What the stand-ins are named by; what was asked of the builder goes to `log.jsonl` in `scratch`."""
    return {
        "PYTHONDONTWRITEBYTECODE": "1",
        "LD_LIBRARY_PATH": str(cudart.parent),
        "STANDIN_VERSION": version,
        "STANDIN_CUDART": str(cudart),
        "STANDIN_LOG": str(scratch / "log.jsonl"),
        "VITRIM_CACHE": str(scratch / "cache"),
    }


def golden(scale: float = 3.0) -> dict[str, np.ndarray]:
    """Images and what the stand-in's graph makes of them; the cut is a near-tie on the first image alone."""
    images = np.random.default_rng(0).standard_normal((4, *SHAPE[1:])).astype(np.float32)
    logits = np.float32(scale) * images.mean(axis=(2, 3))
    kept = np.argsort(-logits, axis=1)[:, :2]
    return {"image": images, "logits": logits, "kept_1": kept, "gap_1": np.array([1e-7, 0.5, 0.5, 0.5])}


def make(folder: Path, precision: str | None = None, *, target: str = "jetpack-5", **changed: Any) -> Path:
    """A bundle whose graphs the stand-in computes; `changed` is of the pruned one."""
    folder.mkdir(parents=True)
    changed = {"kind": "Half" if precision == "fp16" else "Float", **changed}
    for name, wait in (("dense", 0.004), ("model", 0.002), ("floor", 0.0015)):
        graph = {"shape": SHAPE, "scale": 3.0, "wait": wait}
        (folder / f"{name}.onnx").write_text(json.dumps(graph | (changed if name == "model" else {})))
    (folder / "budget.json").write_text("{}")
    rung = {"name": "onnx", "passed": True, "images": 4, "top1": 1.0, "stages": [], "smallest_atol": 1e-6}
    parity: dict[str, Any] = {"passed": True, "atol": 1e-4, "tie": 1e-5, "smallest_atol": 1e-6, "smallest_tie": 0.0}
    parity.update({} if precision is None else {"close": {"cosine": 0.9995, "agreement": 0.99}})
    (folder / "parity.json").write_text(json.dumps(parity | {"first_offender": None, "rungs": [rung]}))
    np.savez(folder / "golden.npz", **golden())  # type: ignore[arg-type]
    standalone.write(folder)
    extra = {} if precision is None else {"precision": {"name": precision, "float32_nodes": []}}
    write_manifest(folder, {"vitrim": "0"}, ["test"], target=target, batch=2, **extra)
    return folder
