"""The model that a file was exported from: recovered, proven equal, pruned; and what is said of another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from foreign_files import cnn, vit_file
from helpers import SMALL, small_recipe, small_vit

from vitrim.exporter.core.errors import InputError, ParityError, UnsupportedError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.passes.rewrite import rewrite
from vitrim.exporter.graph.trace import trace
from vitrim.exporter.pruning.whole import deployable
from vitrim.recipes.pipeline.recover import open_model, recovered
from vitrim.recipes.schema.load import recipe_from

ARGS = {**SMALL, "depth": 2}
NAME = "vit_tiny_patch16_224"


def answers(model: Any) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))).numpy()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    return vit_file(tmp_path_factory.mktemp("vit") / "vit.onnx")


def test_a_file_of_pytorch_s_older_exporter_is_the_model(exported: tuple[Path, Any]) -> None:
    path, model = exported
    said: list[str] = []
    found = recovered(
        path, NAME, {key: ARGS[key] for key in ("patch_size", "embed_dim", "depth", "num_heads")}, said.append
    )
    np.testing.assert_allclose(answers(found), answers(model), atol=1e-5)
    assert found.num_classes == 7  # the file's, as its image size
    (line,) = said
    assert "weights recovered; largest difference of y " in line


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ort-cpu", "trt-8.5"])
def test_vitrim_s_own_dense_graph_is_the_model(tmp_path: Path, target: str) -> None:
    model = small_vit("deit3_small_patch16_224", depth=2)
    graph, _ = rewrite(trace(deployable(model, None), 1), get_target(target))
    onnx.save(graph, tmp_path / "dense.onnx")
    found = recovered(tmp_path / "dense.onnx", "deit3_small_patch16_224", ARGS)
    np.testing.assert_allclose(answers(found), answers(model), atol=2e-5)


def test_another_network_is_refused_by_its_first_tensor(exported: tuple[Path, Any], tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedError, match=r"patch_embed\.proj\.weight \(convolution, 96x3x16x16\) is not in the file"
    ):
        recovered(exported[0], NAME, {**ARGS, "embed_dim": 96})
    with pytest.raises(UnsupportedError, match="no layer normalization; it is no Vision Transformer"):
        recovered(cnn(tmp_path / "cnn.onnx"), NAME, ARGS)


def test_a_network_of_other_activations_is_told_by_its_answers(exported: tuple[Path, Any]) -> None:
    words = r"the weights fit, but logits differ by .*; first before blocks\.0\.norm2 \(node .*\)"
    with pytest.raises(ParityError, match=words):
        recovered(exported[0], NAME, {**ARGS, "num_heads": 1})


def test_a_recipe_names_the_file(exported: tuple[Path, Any]) -> None:
    model = {"name": NAME, "args": ARGS, "onnx": str(exported[0])}
    recipe = recipe_from(small_recipe(model={"random": None, **model}))
    np.testing.assert_allclose(answers(open_model(recipe)), answers(exported[1]), atol=1e-5)
    other = recipe_from(small_recipe(model={"random": None, **model, "sha256": "0" * 64}))
    with pytest.raises(InputError, match=r"^model\.onnx: .* is not the file that this recipe was made with"):
        open_model(other)
