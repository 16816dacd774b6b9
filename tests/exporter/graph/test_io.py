"""Pixels in and best classes out: numbers against PyTorch, nodes, types, and what is refused."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers import budget_for, export_module, small_swin, small_vit
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrim.exporter.core.answers import ranking_error
from vitrim.exporter.core.errors import InputError, ParityError, UnsupportedError
from vitrim.exporter.core.preprocess import Preprocess, from_pixels
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.io import Ends, folded, rewrite_ends
from vitrim.exporter.graph.lint.check import lint
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.load import preprocessing
from vitrim.exporter.pruning.torch_runner import TorchRunner
from vitrim.exporter.pruning.whole import deployable
from vitrim.exporter.runtime.rungs import compare
from vitrim.exporter.runtime.runners import OrtRunner

PATCH14 = {"img_size": 56, "patch_size": 14}
# by model: its arguments, and the nodes that pixels add
FAMILIES: dict[str, tuple[dict[str, int], int]] = {
    "vit_tiny_patch16_224": ({}, 2),
    "deit_small_distilled_patch16_224": ({}, 2),
    "vit_small_patch14_reg4_dinov2": (PATCH14, 2),
    "vit_base_patch16_clip_224": ({}, 2),
    "vit_base_patch16_siglip_224": ({}, 2),
    "eva02_tiny_patch14_224": (PATCH14, 2),
    "beit_base_patch16_224": ({}, 3),
    "vit_small_patch16_dinov3": ({}, 3),
    "swin": ({}, 4),
}


def preprocess_for(
    channels: int = 3, mean: Any = (0.485, 0.456, 0.406), std: Any = (0.229, 0.224, 0.225)
) -> Preprocess:
    return Preprocess((channels, 32, 32), tuple(mean), tuple(std), "bicubic", 1.0, "center")


@functools.cache
def traced(name: str, batch: int) -> tuple[Any, Any, Any]:
    """A small model behind the deployable interface, its preprocessing, and its graph as traced."""
    model = small_swin() if name == "swin" else small_vit(name, depth=2, **FAMILIES[name][0])
    budget = None if name == "swin" else budget_for(model, {1: 12})
    whole = deployable(model, budget, ("logits",) if budget is None else ("logits", "kept"))
    return whole, preprocessing(model), trace(whole, batch)


def make(name: str, batch: int = 1, target: str = "ort-cpu") -> tuple[Any, Any, Any]:
    """`traced`, for a target."""
    whole, preprocess, graph = traced(name, batch)
    return whole, preprocess, rewrite(graph, get_target(target))[0]


def draw_pixels(preprocess: Preprocess, batch: int, seed: int = 0) -> np.ndarray:
    channels, height, width = preprocess.input_size
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, channels), dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FAMILIES))
def test_every_family_takes_pixels(name: str) -> None:
    whole, preprocess, graph = make(name)
    pixels = draw_pixels(preprocess, 8)
    images = from_pixels(pixels, preprocess)
    changed, reports = rewrite_ends(graph, Ends(preprocess, True), images[:1])
    assert len(changed.graph.node) == len(graph.graph.node) + FAMILIES[name][1]
    assert reports[0].nodes == (len(graph.graph.node), len(changed.graph.node))
    assert reports[0].max_abs is not None
    runner = OrtRunner(changed.SerializeToString(), threads=1)
    assert (runner.dtype, runner.shape) == (np.uint8, (1, *pixels.shape[1:]))
    outputs = [runner(pixels[index : index + 1]) for index in range(8)]
    found = {key: np.concatenate([part[key] for part in outputs]) for key in runner.outputs}
    rung = compare(name, TorchRunner(whole, 8)(images), found, atol=1e-4, tie=1e-4)
    assert rung.passed, rung.reason
    operators = Counter(node.op_type for node in changed.graph.node) - Counter(
        node.op_type for node in graph.graph.node
    )
    assert set(operators) <= {"Cast", "Reshape", "Transpose", "MatMul", "Add"}  # nothing that normalizes
    assert not any(node.op_type == "Conv" for node in changed.graph.node)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ort-cpu", "trt-8.5", "trt-11"])
def test_batches_and_targets(target: str) -> None:
    whole, preprocess, graph = make("vit_tiny_patch16_224", 8, target)
    pixels = draw_pixels(preprocess, 8)
    images = from_pixels(pixels, preprocess)
    changed, _ = rewrite_ends(graph, Ends(preprocess, True, 3), images)
    assert not [finding for finding in lint(changed, get_target(target)) if finding.severity == "error"]
    found = OrtRunner(changed.SerializeToString(), threads=1)(pixels)
    rung = compare(target, TorchRunner(whole, 8)(images), found, atol=1e-4, tie=1e-4)
    assert rung.passed, rung.reason
    assert rung.ranked is not None
    reader = next(node for node in changed.graph.node if "image" in node.input)
    assert reader.op_type == "Cast"  # TensorRT takes uint8 nowhere else


@pytest.mark.slow
def test_nothing_asked_is_nothing_done() -> None:
    _, preprocess, graph = make("vit_tiny_patch16_224")
    before = graph.SerializeToString()
    same, reports = rewrite_ends(graph, Ends(preprocess))
    assert same is graph
    assert reports == []
    rewrite_ends(graph, Ends(preprocess, True, 2))
    assert graph.SerializeToString() == before


def test_best_classes_are_torch_s() -> None:
    whole, preprocess, graph = make("vit_tiny_patch16_224", 8)
    images = np.random.default_rng(3).standard_normal((8, *preprocess.input_size), dtype=np.float32)
    changed, reports = rewrite_ends(graph, Ends(preprocess, top_k=7), images)
    assert [output.name for output in changed.graph.output] == ["logits", "kept_1", "probabilities", "classes"]
    assert reports[0].nodes[1] - reports[0].nodes[0] == 3
    found = OrtRunner(changed.SerializeToString(), threads=1)(images)
    best = torch.from_numpy(TorchRunner(whole, 8)(images)["logits"]).softmax(-1).topk(7)
    assert (found["probabilities"].dtype, found["classes"].dtype) == (np.float32, np.int32)
    np.testing.assert_allclose(found["probabilities"], best.values.numpy(), atol=1e-5)
    assert (found["classes"] == best.indices.numpy()).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.05, 1.0)), min_size=1, max_size=4),
    st.integers(1, 9),
    st.integers(1, 9),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_folding_is_exact_for_any_normalization_and_patch(
    norms: list[tuple[float, float]], rows: int, columns: int, biased: bool, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    preprocess = preprocess_for(len(norms), *zip(*norms, strict=True))
    weight = draw.standard_normal((5, len(norms), rows, columns)).astype(np.float32)
    bias = draw.standard_normal(5).astype(np.float32) if biased else None
    patch = draw.integers(0, 256, (1, rows, columns, len(norms)), dtype=np.uint8)
    matrix, moved = folded(weight, bias, preprocess)
    mean, std = (
        torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (preprocess.mean, preprocess.std)
    )
    normalized = (torch.from_numpy(patch).permute(0, 3, 1, 2).double() / 255 - mean) / std
    wanted = torch.nn.functional.conv2d(
        normalized, torch.from_numpy(weight).double(), None if bias is None else torch.from_numpy(bias).double()
    )
    np.testing.assert_allclose(patch.reshape(1, -1) @ matrix + moved, wanted[:, :, 0, 0].numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
def test_any_grid_and_patch_in_a_graph(high: int, wide: int, rows: int, columns: int, batch: int) -> None:
    module = Stem(rows, columns)
    image = torch.zeros(batch, 3, high * rows, wide * columns)
    graph, _ = rewrite(export_module(module, image), get_target("ort-cpu"))
    preprocess = preprocess_for()
    pixels = draw_pixels(Preprocess(tuple(image.shape[1:]), *list(preprocess.to_dict().values())[1:]), batch)
    images = from_pixels(pixels, preprocess)
    changed, _ = rewrite_ends(renamed(graph), Ends(preprocess, True), images)
    found = OrtRunner(changed.SerializeToString(), threads=1)(pixels)["y"]
    with torch.inference_mode():
        np.testing.assert_allclose(found, module(torch.from_numpy(images)).numpy(), atol=1e-5)


class Stem(torch.nn.Module):
    """A patch embedding of rectangular patches, and one more Add that is no position embedding."""

    def __init__(self, rows: int = 4, columns: int = 4, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.proj = torch.nn.Conv2d(3, 6, (rows, columns), **({"stride": (rows, columns)} | options))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x).flatten(2).transpose(1, 2).softmax(-1)


def renamed(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The helper's input is `x`; a deployable's is `image`."""
    old = graph.graph.input[0].name
    graph.graph.input[0].name = "image"
    for node in graph.graph.node:
        node.input[:] = ["image" if name == old else name for name in node.input]
    return graph


class Read(torch.nn.Module):
    """An image that is read twice."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x) + x


class Channels(Stem):
    """Patches that are never laid out as tokens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.proj(x).softmax(1)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Stem(stride=4, padding=4), r"node .* \(Conv\) pads the image with zeros"),
        (Stem(stride=2), "its patches overlap or leave gaps"),
        (Stem(stride=4, dilation=2), "is grouped or dilated"),
        (Stem(3, 3), "does not divide the image"),
        (Channels(), "is not laid out as tokens"),
        (Read(), r"the image is read by .*\(Sin\).*\(Add\), not by one convolution"),
    ],
)
def test_other_stems_are_refused_by_name(module: torch.nn.Module, reason: str) -> None:
    graph, _ = rewrite(export_module(module, torch.zeros(1, 3, 16, 16)), get_target("ort-cpu"))
    with pytest.raises(UnsupportedError, match=f"export.input is uint8, but .*{reason}"):
        rewrite_ends(renamed(graph), Ends(preprocess_for(), True))


def test_wrong_constants_are_found_by_the_hold() -> None:
    _, preprocess, graph = make("vit_tiny_patch16_224")
    other = Preprocess(preprocess.input_size, (0.1, 0.2, 0.3), preprocess.std, "bicubic", 1.0, "center")
    images = from_pixels(draw_pixels(preprocess, 1), preprocess)
    off_grid = images + np.float32(0.4 / 255)
    for chosen, given_images in ((preprocess, off_grid), (other, images)):
        with pytest.raises(ParityError, match="pixels in, .* changed the output"):
            rewrite_ends(graph, Ends(chosen, True), given_images)


def test_more_classes_than_there_are_is_refused() -> None:
    _, preprocess, graph = make("vit_tiny_patch16_224")
    with pytest.raises(InputError, match="export.top_k is 8, but the model has 7 classes"):
        rewrite_ends(graph, Ends(preprocess, top_k=8))


def test_ranking_error_forgives_near_ties_and_nothing_else() -> None:
    logits = np.log(np.array([[0.4, 0.3, 0.1500001, 0.1499999]]))
    right, near = np.array([[0, 1, 2]]), np.array([[0, 1, 3]])
    shares = np.array([[0.4, 0.3, 0.15]])
    assert ranking_error(logits, shares, right) < 1e-6
    assert ranking_error(logits, shares, near) < 1e-6  # a near-tie at the cut
    assert ranking_error(logits, shares, right[:, [1, 0, 2]]) == pytest.approx(0.1)
    assert ranking_error(logits, shares[:, [1, 0, 2]], right[:, [1, 0, 2]]) == pytest.approx(0.1)  # best is not first
    assert ranking_error(logits, shares + 0.01, right) == pytest.approx(0.01, abs=1e-6)
    for wrong in ([[0, 1, 1]], [[0, 1, 4]], [[0, 1, -1]]):
        assert ranking_error(logits, shares, np.array(wrong)) == np.inf
    assert ranking_error(logits, shares * np.nan, right) == np.inf


def test_parity_names_a_wrong_class() -> None:
    logits = np.array([[3.0, 1.0, 0.0], [3.0, 1.5, 0.0]], dtype=np.float32)
    best = torch.from_numpy(logits).softmax(-1).topk(2)
    found = {"logits": logits, "probabilities": best.values.numpy(), "classes": best.indices.numpy().copy()}
    reference = {"logits": logits}
    assert compare("right", reference, found, atol=1e-4, tie=0).passed
    lacking = compare("lacking", {**reference, "classes": found["classes"]}, reference, atol=1e-4, tie=0)
    assert lacking.first_offender == "classes"
    found["classes"][1] = [0, 2]
    rung = compare("wrong", reference, found, atol=1e-4, tie=0)
    assert (rung.passed, rung.first_offender) == (False, "classes")
    assert rung.smallest_atol == pytest.approx(float(best.values[1, 1] - torch.from_numpy(logits[1]).softmax(0)[2]))
