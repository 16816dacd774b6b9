"""ONNX files of strangers: a CNN put together node by node, and a small ViT as older exporters wrote it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from helpers import small_vit
from onnx import TensorProto, helper

node = helper.make_node


def cnn(path: Path, batch: int | str = "n", opset: int = 17, seed: int = 0) -> Path:
    """Four convolutions with a skip, pooled, then two outputs: `answer` [n, 5] and `map` [n, 8, 8, 8]."""
    draw = np.random.default_rng(seed)
    sizes = {"c0": (8, 3, 3, 3), "c1": (8, 8, 3, 3), "c2": (8, 8, 3, 3), "c3": (8, 8, 1, 1), "fc": (5, 8)}
    weights = {f"{name}.w": draw.standard_normal(size) / np.sqrt(np.prod(size[1:])) for name, size in sizes.items()}
    weights |= {f"{name}.b": draw.standard_normal(size[0]) * 0.1 for name, size in sizes.items()}
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        node("Conv", ["pixels", "c0.w", "c0.b"], ["a"], strides=[2, 2], **same),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "c1.w", "c1.b"], ["c"], **same),
        node("Relu", ["c"], ["d"]),
        node("Conv", ["d", "c2.w", "c2.b"], ["e"], **same),
        node("Add", ["e", "b"], ["f"]),
        node("Relu", ["f"], ["image"]),  # a name that a bundle's graph has for its input
        node("Conv", ["image", "c3.w", "c3.b"], ["map"], kernel_shape=[1, 1]),
        node("GlobalAveragePool", ["map"], ["g"]),
        node("Shape", ["g"], ["s"]),
        node("Gather", ["s", "zero"], ["first"]),
        node("Concat", ["first", "minus"], ["shape"], axis=0),
        node("Reshape", ["g", "shape"], ["h"]),
        node("Gemm", ["h", "fc.w", "fc.b"], ["answer"], transB=1),
    ]
    tensors = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    tensors += [onnx.numpy_helper.from_array(np.array([at]), name) for name, at in (("zero", 0), ("minus", -1))]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, 3, 16, 16])],
        [
            helper.make_tensor_value_info("answer", TensorProto.FLOAT, [batch, 5]),
            helper.make_tensor_value_info("map", TensorProto.FLOAT, [batch, 8, 8, 8]),
        ],
        tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def vit_file(path: Path, model: Any = None, opset: int = 14, **args: Any) -> tuple[Path, Any]:
    """A small ViT in a file of PyTorch's older exporter, and the model."""
    model = small_vit(**{"depth": 2, **args}) if model is None else model
    size = model.patch_embed.img_size
    image = torch.zeros(1, model.patch_embed.proj.in_channels, *size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": {"x": {0: "n"}, "y": {0: "n"}}}
        torch.onnx.export(model.eval(), (image,), path, dynamo=False, opset_version=opset, **names)
    return path, model
