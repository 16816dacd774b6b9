"""Graphs of a run in their cache: one file of weights for all, linked by the next stage, whole in the bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import budget_for, small_vit

from vitrim.exporter.core.preprocess import from_pixels
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.graph.files import read_bare, save
from vitrim.exporter.graph.io import Ends
from vitrim.exporter.graph.weights import is_external, place_of
from vitrim.exporter.pruning.load import preprocessing
from vitrim.exporter.runtime.runners import OrtRunner
from vitrim.recipes.pipeline.graphs import KINDS, choose_forms, rewrite_all, trace_all
from vitrim.recipes.pipeline.stage import Silence

FORMS = ("decomposed", "fused")


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The folders of both stages, and what the graphs take."""
    model, root = small_vit(depth=2, embed_dim=192), tmp_path_factory.mktemp("stages")
    preprocess, draw = preprocessing(model), np.random.default_rng(0)
    pixels = draw.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    traced, rewritten = root / "trace", root / "passes"
    traced.mkdir()
    rewritten.mkdir()
    image, ends = from_pixels(pixels, preprocess), Ends(preprocess, pixels=True)
    trace_all(model, model, budget_for(model, {0: 12, 1: 8}), 1, {"note": "n"}, traced, Silence())
    rewrite_all(traced, get_target("ort-cpu"), image, "auto", rewritten, Silence(), ends)
    return {"trace": traced, "passes": rewritten, "pixels": pixels, "image": image}


def size_aside(path: Path) -> dict[str, int]:
    """Bytes that a graph has in each data file."""
    found: dict[str, int] = {}
    for tensor in filter(is_external, read_bare(path)[0].graph.initializer):
        place = place_of(tensor)
        found[place.file] = found.get(place.file, 0) + place.length
    return found


def test_three_traced_graphs_have_one_file_of_weights(stages: dict[str, Any]) -> None:
    folder = stages["trace"]
    (data,) = folder.glob("*.data")
    sizes = [size_aside(folder / f"{kind}.onnx") for kind in KINDS]
    assert sizes[0] == sizes[1] == sizes[2]
    assert list(sizes[0]) == [data.name]
    assert data.stat().st_size < sizes[0][data.name] + 9 * 4096
    assert all((folder / f"{kind}.onnx").stat().st_size < 10**6 for kind in KINDS)


def test_six_rewritten_graphs_link_it_and_add_the_folded_embedding(stages: dict[str, Any]) -> None:
    (data,) = stages["trace"].glob("*.data")
    linked = stages["passes"] / data.name
    assert linked.samefile(data)
    (fresh,) = set(stages["passes"].glob("*.data")) - {linked}
    assert fresh.stat().st_size == 4 * 192 * 3 * 16 * 16  # one patch embedding for all six
    for kind in KINDS:
        for form in FORMS:
            assert set(size_aside(stages["passes"] / f"{kind}.{form}.onnx")) == {data.name, fresh.name}
    reports = json.loads((stages["passes"] / "passes.json").read_text())
    assert set(reports) == {f"{kind}.{form}" for kind in KINDS for form in FORMS}


def test_cached_graphs_run_by_their_path_and_whole_alike(stages: dict[str, Any], tmp_path: Path) -> None:
    for kind in KINDS:
        before = OrtRunner(stages["trace"] / f"{kind}.onnx", threads=1)(stages["image"])["logits"]
        for form in FORMS:
            path = stages["passes"] / f"{kind}.{form}.onnx"
            after = OrtRunner(path, threads=1)(stages["pixels"])
            np.testing.assert_allclose(after["logits"], before, atol=2e-4)
            model, weights = read_bare(path)
            save(model, tmp_path / path.name, weights)
            assert not any(
                map(is_external, onnx.load(tmp_path / path.name, load_external_data=False).graph.initializer)
            )
            whole = OrtRunner(tmp_path / path.name, threads=1)(stages["pixels"])
            assert {name: value.tobytes() for name, value in whole.items()} == {
                name: value.tobytes() for name, value in after.items()
            }
    assert not list(tmp_path.glob("*.data"))


def test_forms_are_chosen_from_them(stages: dict[str, Any]) -> None:
    chosen = choose_forms(stages["passes"], get_target("ort-cpu"), "auto", 1)
    assert set(chosen) == set(KINDS)
    assert {entry["form"] for entry in chosen.values()} <= set(FORMS)
