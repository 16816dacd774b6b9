"""Bundles with graphs of one node, or with no graphs at all, that commands on a device are tried on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from small_graphs import chooser, doubler

from vitrim.exporter.core import layout
from vitrim.exporter.graph.precision.half import to_half
from vitrim.exporter.runtime.bundles.manifest import write_manifest
from vitrim.exporter.runtime.parity import Limits, Parity
from vitrim.exporter.runtime.rungs import compare
from vitrim.exporter.runtime.runners import OrtRunner, run_all

FP16 = {"precision": {"name": "fp16", "float32_nodes": ["/blocks.0/norm"]}, "target": "trt-8.6"}
CLOSE = Limits(cosine=0.9995, agreement=0.99)


def doubling(folder: Path, **entries: Any) -> Path:
    """A bundle whose graph doubles, like the stand-in's engines."""
    folder.mkdir()
    for name in ("model", "dense"):
        (folder / f"{name}.onnx").write_bytes(doubler())
    image = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    golden = {"logits": 2 * image}
    np.savez(folder / "golden.npz", image=image, **golden)
    rung = compare("onnx", golden, golden, atol=1e-3, tie=1e-3)
    Parity(1e-3, 1e-3, (rung,)).write(folder / "parity.json")
    write_manifest(folder, {"vitrim": "0"}, ["vitrim"], **entries)
    return folder


def two_sizes(folder: Path, size: str, **entries: Any) -> Path:
    """The same bundle, and everything in it once more for a further size, in float32."""
    root = doubling(folder)
    for name in ("model.onnx", "dense.onnx", "golden.npz", "parity.json"):
        (root / layout.of_size(name, size)).write_bytes((root / name).read_bytes())
    further = {"input": {"shape": [4, 3]}, "precision": {"name": "fp32"}}
    own = {"preprocess": {"input_size": [3, 1, 1]}, **entries}
    write_manifest(root, {"vitrim": "0"}, ["vitrim"], sizes={size: further}, **own)
    return root


def half(folder: Path, *, ties: int = 1, half_io: bool = False, **golden: np.ndarray) -> Path:
    """A bundle in fp16 held by `close`, whose golden outputs are float32's, but for the first images' choices."""
    folder.mkdir()
    model, image = chooser(), np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    image[:, :2] = [4, 3]
    wanted = run_all(OrtRunner(model.SerializeToString()), image, 2)
    narrow = to_half(model, "fp16", (), half_io=half_io).model
    for name, graph in (("dense", model), ("model.fp32", model), ("model", narrow), ("floor", narrow)):
        (folder / f"{name}.onnx").write_bytes(graph.SerializeToString())
    wanted["kept_1"][:ties] = [0, 2]
    wanted |= {"gap_1": np.full(8, 1e-5)} | golden
    np.savez(folder / "golden.npz", image=image.astype(np.float16) if half_io else image, **wanted)
    Parity(1e-5, 1e-4, (), CLOSE).write(folder / "parity.json")
    (folder / "budget.json").write_text("{}")
    write_manifest(folder, {}, [], precision={"name": "fp16", "float32_nodes": []}, target="ort-cpu", batch=2)
    return folder


def named(folder: Path, *extra: str, precision: dict[str, Any] | None = None, engine: bool = True) -> Path:
    """A bundle whose files but the plan hold their own names, for tests in which nothing runs."""
    folder.mkdir()
    for name in (
        "dense.onnx",
        "model.onnx",
        "floor.onnx",
        "budget.json",
        *extra,
        *(["model.engine"] if engine else []),
    ):
        (folder / name).write_text("{}" if name == "budget.json" else name)
    image = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    np.savez(folder / "golden.npz", image=image, logits=image)
    parity = {"passed": True, "atol": 1e-4, "tie": 1e-5, "smallest_atol": 0.0, "smallest_tie": 0.0, "rungs": []}
    (folder / "parity.json").write_text(json.dumps(parity | {"first_offender": None}))
    held = {} if precision is None else {"precision": precision}
    write_manifest(folder, {}, [], target="jetpack-6", batch=2, **held)
    return folder


def sealed_bundle(folder: Path, text: str = "one") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_text(text * 1000)
    (folder / "budget.json").write_text(text)
    write_manifest(folder, {"vitrim": "0"}, ["vitrim", "export"], target="ort-cpu")
    return folder
