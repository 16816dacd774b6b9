"""The ladder that an export climbs: PyTorch's own rungs, decisions replayed, and the layer that is off first."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import budget_for

from vitrim.exporter.core.errors import ParityError
from vitrim.exporter.core.targets import get_target
from vitrim.exporter.pruning.torch_runner import TorchRunner
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.exporter.runtime.parity import Parity as Ladder
from vitrim.exporter.runtime.parity import Rung
from vitrim.exporter.runtime.runners import OrtRunner
from vitrim.recipes.schema.sections.outputs import ExportSection, ParitySection
from vitrim.recipes.stages import parity
from vitrim.recipes.stages.parity import Parity, eager_rungs, first_offending_layer, lazy_replay, load_arrays

SECTION = ParitySection(atol=1e-4, tie=1e-4)


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_arrays_are_read_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", one=draw(2, 3), two=np.arange(4))
    found = load_arrays(tmp_path / "a.npz")
    np.testing.assert_array_equal(found["one"], draw(2, 3))
    assert (set(found), found["two"].tolist()) == ({"one", "two"}, [0, 1, 2, 3])


def tokens_dropped(**change: np.ndarray) -> list[Rung]:
    """Rungs of a token plan: four images expected, the first three run with tokens dropped."""
    logits, kept = draw(4, 7), np.arange(20).reshape(4, 5)
    eager = {"dense": logits, "nothing_removed": logits, "dropped": logits[:3]}
    expected = {"logits": logits, "kept_1": kept, "gap_1": np.ones(4)}
    return eager_rungs(eager | change, expected, SECTION)


def test_a_token_plan_has_two_rungs_inside_pytorch() -> None:
    identity, static = tokens_dropped()
    assert (identity.name, static.name) == ("identity: nothing removed = timm", "torch: static = tokens dropped")
    assert (identity.images, static.images) == (4, 3)
    assert identity.passed
    assert static.passed


@pytest.mark.parametrize(("size", "error", "passed"), [(1.0, 1e-4, False), (1.0, 9e-6, True), (100.0, 2e-4, True)])
def test_the_last_block_for_read_tokens_is_timm_s_within_rounding(size: float, error: float, passed: bool) -> None:
    """Of the largest logit, which is about 2 here."""
    logits = draw(4, 7) * np.float32(size)
    rung = eager_rungs({"dense": logits, "read": logits + np.float32(error)}, {"logits": logits}, SECTION)[0]
    assert (rung.name, rung.passed) == ("identity: last block for read tokens", passed)


def test_nothing_removed_must_be_timm_to_the_bit() -> None:
    other = draw(4, 7)
    other[1, 2] = np.nextafter(other[1, 2], np.float32(9))
    identity, static = tokens_dropped(nothing_removed=other)
    assert (identity.passed, static.passed) == (False, True)
    assert "not bit-identical" in str(identity.reason)


@pytest.mark.parametrize(("error", "passed"), [(0.9e-4, True), (1.5e-4, False)])
def test_dropping_must_be_within_the_recipe_s_tolerance(error: float, passed: bool) -> None:
    other = draw(4, 7)[:3].copy()
    other[2, 0] += error
    static = tokens_dropped(dropped=other)[1]
    assert static.passed is passed
    assert static.smallest_atol == pytest.approx(error, rel=0.01)


@pytest.mark.parametrize(("error", "passed"), [(0.5e-5, True), (3e-5, False)])
def test_a_narrower_model_must_be_the_masked_one(error: float, passed: bool) -> None:
    narrow = draw(2, 7) + np.float32(error)
    (rung,) = eager_rungs({"masked": draw(2, 7), "narrow": narrow}, {"logits": draw(2, 7)}, SECTION)
    assert (rung.name, rung.passed) == ("torch: narrower = masked", passed)


def test_a_ladder_that_failed_ends_the_run(tmp_path: Path) -> None:
    good = Rung("torch: a", 4, passed=True)
    Ladder(1e-4, 1e-5, (good,)).write(tmp_path / "parity.json")
    Parity.judge(tmp_path)
    bad = Rung("onnx: b", 4, passed=False, first_offender="tokens_2", reason="off by 0.1", smallest_atol=0.1)
    Ladder(1e-4, 1e-5, (good, bad)).write(tmp_path / "parity.json")
    with pytest.raises(ParityError) as caught:
        Parity.judge(tmp_path)
    assert str(caught.value) == (
        "parity failed at 'onnx: b', first at tokens_2: off by 0.1; "
        "the smallest atol that would pass the numbers is 0.1"
    )


def test_a_replay_is_the_model_under_another_one_s_decisions(vit: Any) -> None:
    budget = budget_for(vit, {1: 9}, method="evit")
    images = draw(3, 3, 64, 64)
    view: Any = SimpleNamespace(model=vit, recipe=SimpleNamespace(export=ExportSection()))
    replay = lazy_replay(view, budget, images)
    own = TorchRunner(PrunedViT(vit, budget, ("logits", "kept")), 3)(images)
    chosen = np.array([2, 0])
    again = replay(chosen, {"kept_1": own["kept_1"][chosen]})["logits"]
    np.testing.assert_allclose(again, own["logits"][chosen], atol=1e-5)
    others = np.tile(np.arange(9), (2, 1))
    assert (others != own["kept_1"][chosen]).any()
    found = replay(chosen, {"kept_1": others})["logits"]
    sliced = budget_for(vit, {1: 9}, method="slice", parameters={"place": budget.place})
    with torch.inference_mode():
        wanted = PrunedViT(vit, sliced)(torch.from_numpy(images[chosen]))
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)  # type: ignore[union-attr]
    assert np.abs(found - again).max() > 1e-3


def test_a_replay_that_is_not_asked_for_opens_no_model(vit: Any) -> None:
    class Closed:
        @property
        def model(self) -> Any:
            raise AssertionError("opened")

    closed: Any = Closed()
    replay = lazy_replay(closed, None, draw(1, 3, 64, 64))
    with pytest.raises(AssertionError, match="opened"):
        replay(np.array([0]), {})


@pytest.mark.slow
def test_the_first_block_that_is_off_is_named(vit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    budget, image, target = budget_for(vit, {1: 9}, method="evit"), draw(1, 3, 64, 64), get_target("ort-cpu")
    graph = parity.trace(PrunedViT(vit, budget, ("tokens",)), 1)
    monkeypatch.setattr(parity, "trace", lambda model, batch: copy.deepcopy(graph))
    assert first_offending_layer(vit, budget, image, 1e-3, target) is None

    class Off(OrtRunner):
        """Its blocks 2 and 3 are off by 0.01."""

        def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
            found = dict(super().__call__(image))
            return {name: value + 0.01 * (name in ("tokens_2", "tokens_3")) for name, value in found.items()}

    monkeypatch.setattr(parity, "OrtRunner", Off)
    assert first_offending_layer(vit, budget, image, 0.02, target) is None
    assert first_offending_layer(vit, budget, image, 0.005, target) == "tokens_2"

    class Short(OrtRunner):
        """It lost a token after block 1."""

        def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
            found = dict(super().__call__(image))
            return found | {"tokens_1": found["tokens_1"][:, 1:]}

    monkeypatch.setattr(parity, "OrtRunner", Short)
    assert first_offending_layer(vit, budget, image, 1e3, target) == "tokens_1"


def test_the_bundle_s_ladder_has_every_rung(walked: Any) -> None:
    ladder = Ladder.read(walked.folders["parity"] / "parity.json", "parity report")
    assert [rung.name for rung in ladder.rungs] == [
        "identity: nothing removed = timm",
        "identity: last block for read tokens",
        "torch: static = tokens dropped",
        "onnx: as traced",
        "onnx: rewritten for ort-cpu",
        "onnx: model.onnx = proof.onnx",
    ]
    assert [rung.images for rung in ladder.rungs[3:]] == [4, 4, 4]
    assert [bool(rung.stages) for rung in ladder.rungs[3:]] == [True, True, False]
    assert ladder.rungs[-1].end.max_abs == 0
    assert (ladder.atol, ladder.tie, ladder.close) == (1e-4, 1e-4, None)


def test_golden_outputs_are_the_reference_s_first_images(walked: Any) -> None:
    golden = load_arrays(walked.folders["parity"] / "golden.npz")
    expected = load_arrays(walked.folders["reference"] / "outputs.npz")
    np.testing.assert_array_equal(golden["image"], np.load(walked.folders["reference"] / "images.npy")[:2])
    for name, value in expected.items():
        np.testing.assert_array_equal(golden[name], value[:2])
