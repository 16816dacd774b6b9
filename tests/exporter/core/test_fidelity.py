"""What is counted on images is the same by batches and at once, and any JSON is a report or one line."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import fuzz, held, json_file, mangled
from hypothesis import given
from hypothesis import strategies as st

from vitrim.exporter.core.answers import (
    FEATURES,
    log_softmax,
    same_neighbour,
)
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.fidelity import Fidelity, FidelityTally, doubt_labels, fidelity
from vitrim.exporter.core.records import finite

OLD = Path(__file__).parents[2] / "data" / "0.1.0"


@pytest.mark.parametrize(
    ("right", "images", "classes", "doubted"),
    [
        (17, 1000, 1000, True),  # what folders 0..999 in the order of their names gave
        (783, 1000, 1000, False),
        (0, 64, 1000, True),
        (0, 63, 1000, False),  # too few to say
        (10, 100, 10, True),
        (60, 100, 10, False),
        (32, 64, 2, True),
        (50, 64, 2, False),
        (64, 64, 1, False),
    ],
)
def test_labels_at_chance_are_doubted(right: int, images: int, classes: int, doubted: bool) -> None:
    found = Fidelity(images, 1.0, 0.0, accuracy_dense=right / images, accuracy_pruned=0.5, lost=0, won=0)
    said = doubt_labels(found, classes)
    assert (said is not None) is doubted
    if said is not None:
        share = f"{100 * right / images:.1f} %"
        assert said.startswith(f"dense top-1 is {share} on {images} images: the labels do not fit the model")


def test_without_labels_nothing_is_doubted() -> None:
    assert doubt_labels(Fidelity(1000, 0.0, 0.0), 10) is None


def all_at_once(dense: np.ndarray, pruned: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """The definitions, on whole arrays."""
    ours, theirs = dense.argmax(1), pruned.argmax(1)
    p, q = log_softmax(dense), log_softmax(pruned)
    kls = (np.exp(p) * (p - q)).sum(axis=1)
    right, still = ours == labels, theirs == labels
    return {
        "images": len(dense),
        "agreement": float((ours == theirs).mean()),
        "kl": float(kls.mean()),
        "accuracy_dense": float(right.mean()),
        "accuracy_pruned": float(still.mean()),
        "lost": int((right & ~still).sum()),
        "won": int((~right & still).sum()),
        "spread": float(kls.std(ddof=1) / np.sqrt(len(kls))),
    }


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 50.0]))
def test_counting_by_batches_gives_the_numbers_of_all_at_once(sizes: list[int], seed: int, level: float) -> None:
    draw, count = np.random.default_rng(seed), sum(sizes)
    dense = (draw.standard_normal((count, 5)) + level).astype(np.float32)
    pruned = (dense + 0.5 * draw.standard_normal((count, 5))).astype(np.float32)
    labels = draw.integers(0, 5, count)
    tally = FidelityTally()
    for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        part = slice(start, start + size)
        tally.add(dense[part], pruned[part], labels[part])
    if count < 2:
        return
    wanted, found = all_at_once(dense, pruned, labels), tally.result()
    spread = wanted.pop("spread")
    for key, value in wanted.items():
        assert getattr(found, key) == pytest.approx(value, rel=1e-12, abs=1e-15), key
    assert found.kl_interval is not None
    low, high = wanted["kl"] - 1.959963984540054 * spread, wanted["kl"] + 1.959963984540054 * spread
    assert found.kl_interval == pytest.approx((max(low, 0.0), high), rel=1e-9, abs=1e-15)


def test_50_000_images_are_compared_in_the_memory_of_a_batch() -> None:
    draw = np.random.default_rng(0)
    dense = draw.standard_normal((64, 1000), dtype=np.float32)
    tally = FidelityTally()
    tracemalloc.start()
    for _ in range(50):
        tally.add(dense, dense + np.float32(0.1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8e6  # 64 x 1,000 float64 is half a megabyte
    assert tally.result().images == 3200


def test_what_cannot_be_compared_is_refused() -> None:
    logits = np.eye(3, dtype=np.float32)
    tally = FidelityTally()
    with pytest.raises(InputError, match="there are no images to compare"):
        tally.result()
    with pytest.raises(InputError, match=r"logits \[3, 3\] cannot be held against \[2, 3\]"):
        tally.add(logits, logits[:2])
    with pytest.raises(InputError, match="and 2 labels"):
        tally.add(logits, logits, np.arange(2))
    tally.add(logits, logits)
    with pytest.raises(InputError, match="some images have labels and others have none"):
        tally.add(logits, logits, np.arange(3))
    assert tally.result() == Fidelity(images=3, agreement=1.0, kl=0.0, kl_interval=(0.0, 0.0))
    assert "accuracy_dense" not in tally.result().to_json()
    assert fidelity(logits[:1], logits[:1], None).kl_interval is None


@pytest.mark.parametrize("name", ["fidelity", "fidelity-int8"])
def test_files_of_0_1_0_load(name: str) -> None:
    data = json.loads((OLD / f"{name}.json").read_text())
    found = Fidelity.from_json(data, name)
    assert found.images == 12
    assert (found.precision is None) is (name == "fidelity")
    if found.precision is not None:
        assert set(found.precision.tokens_changed) == {"kept_0", "kept_1", "kept_2", "kept_3"}
    again = found.to_json()
    assert {key: again[key] for key in data} == data  # every old key is where it was
    assert set(again) - set(data) == set(Fidelity.DERIVED)


def use_answers(path: Path) -> None:
    found = Fidelity.read(path, "fidelity report")
    json.dumps(finite(found.to_json()), allow_nan=False)
    low, high = found.agreement_interval
    assert 0 <= low <= high <= 1


@fuzz(150)
@given(
    data=st.sampled_from([json.loads((OLD / f"{name}.json").read_text()) for name in ("fidelity", "fidelity-int8")])
    .flatmap(mangled),
    tail=st.just(b"") | st.binary(max_size=4),
)  # fmt: skip
def test_any_json_is_a_report_of_answers_or_one_line(data: Any, tail: bytes, tmp_path: Path) -> None:
    held(use_answers, json_file(tmp_path / "fidelity.json", data, tail))


@pytest.mark.parametrize("change", [{"images": 0}, {"agreement": 1.5}, {"accuracy_dense": -1}])
def test_shares_and_images_that_cannot_be_are_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = json_file(tmp_path / "f.json", json.loads((OLD / "fidelity.json").read_text()) | change)
    with pytest.raises(InputError, match=r"is of 0 images|holds the share (1\.5|-1); shares lie from 0 to 1"):
        Fidelity.read(path, "fidelity report")


def test_features_are_judged_over_all_batches_together() -> None:
    draw = np.random.default_rng(3)
    dense = draw.standard_normal((20, 8)).astype(np.float32)
    pruned = dense + 0.8 * draw.standard_normal((20, 8)).astype(np.float32)
    tally = FidelityTally(FEATURES)
    for start in range(0, 20, 7):
        labels = np.zeros(len(dense[start : start + 7]), int)
        tally.add(dense[start : start + 7], pruned[start : start + 7], labels)
    found = tally.result()
    norms = np.linalg.norm(dense, axis=1) * np.linalg.norm(pruned, axis=1)
    assert found.cosine == pytest.approx(float(((dense * pruned).sum(1) / norms).mean()), abs=1e-6)
    assert found.agreement == same_neighbour(dense, pruned).mean()
    assert 0 < found.agreement < 1
    assert (found.accuracy_dense, found.output, found.task.short) == (None, "features", "neighbour")
    assert Fidelity.from_json(json.loads(json.dumps(found.to_json())), "here") == found
