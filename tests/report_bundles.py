"""A bundle of small numbers that a report can be made of: 16 patches, two stages, a dense graph that runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vitrim.exporter.core.fidelity import Fidelity, fidelity
from vitrim.exporter.runtime.bench.blocks import BlockTimes, ByBlock
from vitrim.exporter.runtime.bench.report import Bench, report
from vitrim.exporter.runtime.bundles.manifest import write_manifest
from vitrim.exporter.runtime.parity import Parity
from vitrim.exporter.runtime.rungs import compare
from vitrim.recipes.evaluation.result import ClassAnswers, Evaluation, Moved

IMAGES, CLASSES = 6, 3
PLAN = [(17, 17), (17, 13), (13, 13), (13, 9)]


def dense_graph() -> bytes:
    """Logits of an image [1, 8, 8, 3] uint8: the means of its channels over 10."""
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers", "axes"], ["means"], keepdims=0),
        helper.make_node("Div", ["means", "ten"], ["logits"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([1, 2], np.int64), "axes"),
        numpy_helper.from_array(np.array(10, np.float32), "ten"),
    ]
    ends = (
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 8, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])],
    )
    graph = helper.make_graph(nodes, "dense", *ends, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    found: bytes = model.SerializeToString()
    onnx.checker.check_model(model)
    return found


def golden() -> dict[str, np.ndarray]:
    """Outputs of a plan that first merges four patches into patch 0, then drops the last four tokens.

    The pruned answer of image 0 is another class than the dense one.
    """
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, 8, 8, 3), dtype=np.uint8)
    logits = images.mean(axis=(1, 2)).astype(np.float32) / 10
    logits[0, logits[0].argmin()] += 5
    first = np.tile(np.r_[0, 1, 6:17], (IMAGES, 1))
    pairs = np.tile(65536 * np.arange(2, 6) + 1, (IMAGES, 1))
    gap = np.full(IMAGES, 0.5, np.float32)
    return {
        "image": images,
        "logits": logits,
        "kept_1": first.astype(np.int32),
        "merged_1": pairs.astype(np.int32),
        "gap_1": gap,
        "kept_3": first[:, :9].astype(np.int32),
        "gap_3": gap,
    }


def budget(model: str = "small") -> dict[str, Any]:
    """The plan, with its work by block."""
    by_block = {"dense": [4.0] * 4, "pruned": [4.0, 3.5, 3.0, 2.5], "scoring": [0.0, 0.25, 0.0, 0.25]}
    return {
        "format": "vitrim-budget/3",
        "model": model,
        "method": "tome",
        "parameters": {},
        "prefix_tokens": 1,
        "blocks": [{"block": at, "before": old, "after": new} for at, (old, new) in enumerate(PLAN)],
        "gmacs": {"dense": 16.0, "pruned": 13.0, "scoring": 0.5, "paper": 13.0},
        "statistics": {"gmacs_by_block": by_block},
    }


def samples() -> dict[str, np.ndarray]:
    """Milliseconds of 50 rounds: dense about 10, pruned about 8, floor about 7."""
    noise = np.random.default_rng(1).uniform(0, 0.1, (3, 50))
    return {name: base + noise[at] for at, (name, base) in enumerate((("dense", 10), ("pruned", 8), ("floor", 7)))}


def make(
    folder: Path,
    *,
    name: str = "small",
    command: str = "vitrim",
    rung: str = "onnx",
    recipe: str = "",
    labels: list[str] | None = None,
) -> Path:
    """Publish it; the words may be hostile."""
    folder.mkdir(parents=True)
    held = golden()
    dense = held["image"].mean(axis=(1, 2)).astype(np.float32) / 10
    (folder / "dense.onnx").write_bytes(dense_graph())
    (folder / "model.onnx").write_bytes(dense_graph())
    (folder / "recipe.yaml").write_text(recipe or "prune: {method: tome}\n")
    np.savez(folder / "golden.npz", **held)
    (folder / "budget.json").write_text(json.dumps(budget(name)))
    if labels is not None:
        (folder / "labels.json").write_text(json.dumps(labels))
    near = held | {"logits": held["logits"] + np.float32(1e-5)}
    Parity(1e-3, 1e-3, (compare(rung, held, near, atol=1e-3, tie=1e-3),)).write(folder / "parity.json")
    fidelity(dense, held["logits"], None).write(folder / "fidelity.json")
    report(samples(), 1, {"runtime": "onnxruntime-cpu", "cpu": "a CPU"}).write(folder / "bench.json")
    write_manifest(folder, {"vitrim": "0"}, [command], target="ort-cpu", batch=1)
    return folder


def evaluation(folder: Path, manifest: str = "") -> Path:
    """What an evaluation of six images wrote, by hand."""
    rows = [(0, 3, 2, 0.25, 3, 1), (1, 2, 2, 0.0, 1, 1), (2, 1, 1, 0.5, 0, 1)]
    found = Evaluation(
        format="vitrim-evaluation/1",
        bundle="out",
        bundle_sha256=manifest,
        images="my photos/",
        images_sha256="5" * 64,
        target="ort-cpu",
        dense_by="onnxruntime-cpu",
        pruned_by="onnxruntime-cpu",
        answers=Fidelity(
            6, 5 / 6, 0.25, accuracy_dense=4 / 6, accuracy_pruned=3 / 6, lost=2, won=1, kl_interval=(0, 1)
        ),
        by="label",
        classes=tuple(ClassAnswers(*row) for row in rows),
        moved=(Moved(4, "secret.png", 0, 2, 0.7, 0),),
        count=6,
    )
    path = folder / "evaluation.json"
    folder.mkdir(exist_ok=True)
    found.write(path)
    return path


def counted(found: Bench) -> Bench:
    """A benchmark with the time by block."""
    dense = BlockTimes({"embedding": 1.0, **{f"block {at}": 2.0 for at in range(4)}, "head": 0.5}, 11.0)
    pruned = BlockTimes(
        {"embedding": 1.0, "block 0": 2.0, "block 1": 2.5, "block 2": 1.0, "block 3": 0.5, "head": 0.5}, 9.0
    )
    return replace(found, by_block=ByBlock("onnxruntime", 20, {"dense": dense, "pruned": pruned}))
