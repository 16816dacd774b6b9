"""What a step asks vitrim for, and what a machine says it has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu_day.plan import DENSE, QUICKSTART, Step
from gpu_day.results import result_of
from gpu_day.steps import bundle_of, engines_of, kept_weights, newest_target, probe, pytorch, recipe_of

from vitrim import api
from vitrim.exporter.core.targets import TARGETS

TIMES = Step("time", "deit_small_patch16_224", 64, "trt-rtx", "evit", "int8", 0.5, "plain")


@pytest.mark.parametrize("model", ["deit_small_patch16_224", QUICKSTART])
@pytest.mark.parametrize("method", [DENSE, "frugal"])
def test_a_bundle_s_recipe_is_one(model: str, method: str) -> None:
    source, settings = recipe_of(replace(TIMES, kind="export", model=model).of(method), Path("w"))
    recipe = api.recipe(source, settings)
    assert (recipe.export.target, recipe.export.batch, recipe.precision.name) == ("trt-rtx", 64, "int8")
    assert (recipe.parity.images, recipe.parity.golden) == (64, 64)  # a batch at least
    assert recipe.prune is not None
    if method == DENSE:
        assert (recipe.prune.method, recipe.prune.keep_rates, recipe.prune.target) == ("slice", {1: 1.0}, None)
    else:
        assert recipe.prune.method == "frugal"
        assert recipe.prune.keep_rates is None
        assert recipe.prune.target is not None
        assert recipe.prune.target.flops_ratio == 0.5
    limits = (recipe.precision.agreement, recipe.precision.cosine)
    assert limits == ((None, None) if model == QUICKSTART else (0.0, 0.0))  # trained weights are held to something


def test_weights_are_the_ones_that_were_given(tmp_path: Path) -> None:
    file = tmp_path / "weights" / f"{TIMES.model}.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"weights")
    assert kept_weights(tmp_path, TIMES.model) == [file]
    assert kept_weights(tmp_path, "deit_small") == []
    step = replace(TIMES, kind="export", checkpoint=64 * "a")
    section = api.recipe(*recipe_of(step, tmp_path)).model
    assert (section.checkpoint, section.sha256, section.random) == (str(file), 64 * "a", None)
    assert api.recipe(*recipe_of(replace(step, checkpoint=None), tmp_path)).model.random == 0


def test_a_timing_takes_dense_pruned_and_floor_of_one_precision() -> None:
    found = engines_of(TIMES, Path("w"))
    dense, own = bundle_of(Path("w"), TIMES.of(DENSE)), bundle_of(Path("w"), TIMES)
    assert dense != own
    assert dense.name == "deit_small_patch16_224-dense-int8-b64-trt-rtx"
    assert found == {
        "dense": (dense / "model.engine", dense / "model.onnx"),
        "pruned": (own / "model.engine", own / "model.onnx"),
        "floor": (Path("w/engines/deit_small_patch16_224-evit-int8-b64-trt-rtx-floor.engine"), own / "floor.onnx"),
    }
    alone = engines_of(TIMES.of(DENSE), Path("w"))
    assert alone["dense"] == alone["pruned"]
    assert "floor" not in alone


@pytest.mark.parametrize(
    ("version", "target"),
    [(None, None), ("8.4.1", None), ("8.5.2.2", "trt-8.5"), ("8.6.1", "trt-8.6"), ("10.7.0", "trt-10.3"),
     ("10.16.1", "trt-10.16"), ("12.0", "trt-11")],
)  # fmt: skip
def test_the_newest_target_that_a_tensorrt_takes(version: str | None, target: str | None) -> None:
    assert newest_target(version) == target
    assert target is None or TARGETS[target].tensorrt is not None


def test_the_machine_says_what_it_lacks() -> None:
    assert set(probe("gpu")) == {"gpu", "compute_capability", "cuda", "driver"}
    for name in ("tensorrt", "rtx", "torch", "meter"):
        found = probe(name)
        assert set(found) == {"version", "runs", "builds"}
        assert found["runs"] is None or "\n" not in found["runs"]
    if not torch.cuda.is_available():
        assert probe("torch")["runs"] == f"PyTorch {torch.__version__} finds no GPU here: check nvidia-smi"


class Recording:
    """In the place of torch.cuda.CUDAGraph."""

    def replay(self) -> None:
        """Launch nothing."""


@contextmanager
def recording(graph: Recording, stream: Any) -> Iterator[None]:
    assert isinstance(graph, Recording)
    assert stream == "stream"
    yield


@pytest.mark.slow
def test_pytorch_s_half_model_is_timed_in_both_ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On the CPU in float32, with stand-ins for CUDA's own: the model, its input and the result are real."""
    seen: list[tuple[str, str, tuple[int, ...]]] = []
    for kind in (torch.nn.Module, torch.Tensor):
        for word in ("half", "cuda"):  # half a ViT is slow on a CPU

            def note(self: Any, kind: type = kind, word: str = word) -> Any:
                seen.append((kind.__name__, word, tuple(getattr(self, "shape", ()))))
                return self

            monkeypatch.setattr(kind, word, note)
    for name, value in {
        "synchronize": lambda: None,
        "Stream": lambda: "stream",
        "stream": lambda stream: nullcontext(),
        "CUDAGraph": Recording,
        "graph": recording,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    step = Step("torch", QUICKSTART, 2, "torch", variant="eager", rounds=8)
    found = pytorch(step, tmp_path)
    shape = (2, 3, 112, 112)
    assert seen == [
        ("Module", "half", ()),
        ("Module", "cuda", ()),
        ("Tensor", "half", shape),
        ("Tensor", "cuda", shape),
    ]
    plain, graph = (found.distributions[name] for name in ("plain", "cuda_graph"))
    assert (plain.samples, graph.samples) == (8, 8)
    assert plain.median > 10 * graph.median  # a replay that does nothing
    assert found.energy.joules_per_image is None
    assert result_of(step, found.to_json()) == found
    assert found.version == torch.__version__


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("form", ["eager", "compiled"])
def test_pytorch_is_timed_on_a_gpu(form: str, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    step = Step("torch", QUICKSTART, 2, "torch", variant=form, rounds=10)
    assert pytorch(step, tmp_path).distributions["cuda_graph"].median > 0
