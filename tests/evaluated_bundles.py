"""A bundle of two matrices and a folder of photos that it is evaluated on, and work for pools in other processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.runtime.bundles.manifest import write_manifest

CLASSES, BATCH = 5, 2
PREPROCESS = {
    "input_size": [3, 8, 8], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear", "crop_pct": 1.0,
    "crop_mode": "center",
}  # fmt: skip


def weights(pruned: bool) -> np.ndarray:
    draw = np.random.default_rng(0)
    found = draw.standard_normal((192, CLASSES))
    return (found + pruned * 0.6 * draw.standard_normal((192, CLASSES))).astype(np.float32)


def graph(pruned: bool, output: str = "logits") -> bytes:
    """`logits` [2, 5] of `image` [2, 3, 8, 8] float32, times a matrix."""
    nodes = [
        helper.make_node("Reshape", ["image", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], [output]),
    ]
    held = [
        numpy_helper.from_array(np.array([BATCH, -1]), "shape"),
        numpy_helper.from_array(weights(pruned), "w"),
    ]
    ends = [
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [BATCH, 3, 8, 8])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [BATCH, CLASSES])],
    ]
    made = helper.make_graph(nodes, "g", *ends, held)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def make_bundle(folder: Path, output: str = "logits", **entries: Any) -> Path:
    """A bundle with what an evaluation reads of one."""
    folder.mkdir()
    for name, pruned in (("dense.onnx", False), ("model.onnx", True)):
        (folder / name).write_bytes(graph(pruned, output))
    image = np.zeros((1, 3, 8, 8), np.float32)
    np.savez(folder / "golden.npz", image=image, **{output: np.zeros((1, CLASSES), np.float32)})
    write_manifest(folder, {}, [], **{"preprocess": PREPROCESS, "target": "ort-cpu", "batch": BATCH, **entries})
    return folder


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)


def make_photos(folder: Path, count: int = 23, flat: bool = False) -> Path:
    """PNGs of the graphs' own size, in folders named by class, or in one; the dense graph has two of three right."""
    for index, picture in enumerate(pixels(count)):
        place = folder if flat else folder / str(label(picture, index))
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(place / f"{index:03}.png")
    return folder


def label(picture: np.ndarray, index: int) -> int:
    """The dense graph's answer to [8, 8, 3] uint8; of every third image a class by its index."""
    return index % CLASSES if index % 3 == 2 else int(answers(picture[None], False).argmax())


def answers(images: np.ndarray, pruned: bool) -> np.ndarray:
    """Logits of [n, 8, 8, 3] uint8, by numpy."""
    values = ((images / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2).reshape(len(images), -1)
    found: np.ndarray = values @ weights(pruned)
    return found


def logits(folder: Path, pruned: bool) -> np.ndarray:
    """What the graph says to every photo of a folder, in order of their paths, by numpy."""
    images = np.stack([np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))])
    return answers(images, pruned)


def doubling() -> Callable[[int], int]:
    """Work that doubles."""
    return lambda item: 2 * item


def dying(flag: Path) -> Callable[[int], int]:
    """Work that kills its process over the item 3 for as long as the file says, a byte a time."""
    return partial(_die_or_double, flag)


def _die_or_double(flag: Path, item: int) -> int:
    left = flag.stat().st_size if item == 3 else 0
    if left:
        os.truncate(flag, left - 1)
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * item


def refusing() -> Callable[[int], int]:
    """Work that cannot be begun."""
    raise InputError("there is no work here")


def sleeping(folder: Path) -> Callable[[int], int]:
    """Work that says who does it, and then takes long."""
    return partial(_sleep, folder)


def _sleep(folder: Path, item: int) -> int:
    import time

    (folder / str(os.getpid())).touch()
    time.sleep(60)
    return item
