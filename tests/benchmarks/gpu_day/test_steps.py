"""What a step asks vitrim for, and what its result must hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gpu_day.plan import DENSE, QUICKSTART, Step
from gpu_day.steps import bundle_of, engines_of, kept_weights, newest_target, probe, pytorch, recipe_of, require_result

from vitrim import api
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.targets import TARGETS
from vitrim.exporter.runtime.bench.report import report
from vitrim.exporter.runtime.bench.stats import summarize
from vitrim.exporter.runtime.rungs import compare

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


def results() -> list[tuple[Step, dict[str, Any]]]:
    samples = {kind: np.full(20, value) for kind, value in (("dense", 4.0), ("pruned", 2.0), ("floor", 1.6))}
    timed = report(samples, 64, {}).to_json()
    logits = {"logits": np.ones((4, 3), dtype=np.float32)}
    spread = summarize(np.full(9, 6.0)).to_json()
    torch_found = {"distributions": {"plain": spread, "cuda_graph": spread}, "energy": {"joules_per_image": None}}
    return [
        (TIMES, timed),
        (TIMES.but("energy"), timed),
        (TIMES.but("parity"), {"rung": compare("x", logits, logits, atol=1, tie=0).to_json()}),
        (TIMES.but("torch"), torch_found),
        (TIMES.but("build"), {"sha256": {"pruned": "a"}}),
        (TIMES.but("export"), {"sha256": {"pruned": "a"}}),
    ]


@pytest.mark.parametrize(("step", "found"), results(), ids=lambda value: getattr(value, "kind", ""))
def test_a_result_is_what_its_kind_makes(step: Step, found: dict[str, Any]) -> None:
    require_result(step, found)
    with pytest.raises(InputError):
        require_result(step, {})
    for other, wrong in results():
        if {step.kind, other.kind} not in ({"time", "energy"}, {"build", "export"}) and step.kind != other.kind:
            with pytest.raises(InputError):
                require_result(step, wrong)


def test_a_latency_that_no_clock_measures_is_no_result() -> None:
    _, timed = results()[0]
    timed["distributions"]["pruned"]["median"] = 0.0
    with pytest.raises(InputError, match="no clock measures that"):
        require_result(TIMES, timed)


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
    for name in ("tensorrt", "rtx", "torch"):
        found = probe(name)
        assert set(found) == {"version", "runs", "builds"}
        assert found["runs"] is None or "\n" not in found["runs"]
    if not torch.cuda.is_available():
        assert probe("torch")["runs"] == f"PyTorch {torch.__version__} finds no GPU here: check nvidia-smi"


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("form", ["eager", "compiled"])
def test_pytorch_is_timed_on_a_gpu(form: str, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    step = Step("torch", QUICKSTART, 2, "torch", variant=form, rounds=10)
    require_result(step, pytorch(step, tmp_path))
