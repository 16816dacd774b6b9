"""Fidelity: what is counted on images, and what is expected of images like them."""

from __future__ import annotations

import json
import math
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
    LOGITS,
    Fidelity,
    FidelityTally,
    change_interval,
    doubt_labels,
    expected_agreement,
    fidelity,
    log_softmax,
    mcnemar,
    mean_interval,
    same_neighbour,
    same_top,
    share_interval,
    similarities,
    task_of,
)
from vitrim.exporter.core.errors import InputError
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


def test_expected_agreement_tries_every_change_on_every_gap() -> None:
    draw = np.random.default_rng(0)
    reference = draw.standard_normal((40, 6)).astype(np.float32)
    logits = reference + 0.3 * draw.standard_normal((40, 6)).astype(np.float32)
    turned = 0
    for one in reference:
        gap = np.sort(one)[-1] - np.sort(one)[-2]
        for other, theirs in zip(reference, logits, strict=True):
            first, second = np.argsort(-other)[:2]
            change = (theirs[first] - theirs[second]) - (other[first] - other[second])
            turned += gap + change < 0
    assert expected_agreement(reference, logits) == pytest.approx(1 - turned / 1600, abs=1e-9)


def test_a_tie_at_the_top_is_no_answer() -> None:
    dense = np.array([[3.0, 1, 0], [2, 2, 0], [0, 1, 5], [4, 0, 0]])
    other = np.array([[3.0, 3, 0], [9, 2, 0], [0, 1, 1.5], [0, 0, 0]])
    assert same_top(dense, other).tolist() == [False, True, True, False]
    assert fidelity(dense, other, None).agreement == 0.5
    assert fidelity(dense, np.zeros((4, 3)), None).agreement == 0


def test_it_is_1_where_nothing_changes_and_close_to_what_many_images_count() -> None:
    draw = np.random.default_rng(1)
    reference = draw.standard_normal((4000, 2))
    assert expected_agreement(reference, reference) == 1
    logits = reference + 0.2 * draw.standard_normal((4000, 2))
    counted = fidelity(reference, logits, None).agreement
    assert 0.85 < counted < 0.97
    few = [expected_agreement(reference[i : i + 100], logits[i : i + 100]) for i in range(0, 4000, 100)]
    counts = [fidelity(reference[i : i + 100], logits[i : i + 100], None).agreement for i in range(0, 4000, 100)]
    assert np.mean(few) == pytest.approx(counted, abs=0.01)
    assert np.std(few) < 0.8 * np.std(counts)  # steadier on a hundred images


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


def test_shares_have_wilson_s_interval() -> None:
    # From Wilson's formula, worked by hand for 8 of 10 and for the ends.
    assert share_interval(0.8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert share_interval(1.0, 4) == pytest.approx((0.5101092, 1.0), abs=1e-6)
    assert share_interval(0.0, 4) == pytest.approx((0.0, 0.4898908), abs=1e-6)
    found = Fidelity(images=10, agreement=0.8, kl=0.1, accuracy_dense=1.0, accuracy_pruned=0.5)
    assert found.agreement_interval == share_interval(0.8, 10)
    assert found.accuracy_dense_interval == share_interval(1.0, 10)
    assert found.accuracy_pruned_interval == share_interval(0.5, 10)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    draw = np.random.default_rng(3)
    hits = [low <= 0.9 <= high for low, high in (share_interval(draw.binomial(40, 0.9) / 40, 40) for _ in range(4000))]
    assert 0.93 < np.mean(hits) < 0.98


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


def nearest_by_loop(features: np.ndarray) -> list[int]:
    found = []
    for i, a in enumerate(features):
        others = [(a @ b / np.linalg.norm(a) / np.linalg.norm(b), -j) for j, b in enumerate(features) if j != i]
        found.append(-max(others)[1])
    return found


@given(st.integers(0, 10_000), st.integers(3, 12), st.sampled_from([0.0, 0.5, 2.0]))
def test_neighbours_agree_where_a_loop_finds_the_same_ones(seed: int, count: int, noise: float) -> None:
    draw = np.random.default_rng(seed)
    dense = draw.standard_normal((count, 6))
    pruned = dense + noise * draw.standard_normal((count, 6))
    expected = [a == b for a, b in zip(nearest_by_loop(dense), nearest_by_loop(pruned), strict=True)]
    assert same_neighbour(dense, pruned).tolist() == expected
    assert same_neighbour(dense, 3 * dense).all()  # a cosine knows no lengths


def test_neighbours_of_many_images_are_looked_for_among_all_of_them() -> None:
    dense = np.random.default_rng(1).standard_normal((1030, 4))  # more than are compared at once
    pruned = dense.copy()
    pruned[1029] = dense[0] + 0.01
    same, whole = same_neighbour(dense, pruned), similarities(dense).argmax(1)
    moved = similarities(pruned).argmax(1)
    assert same.tolist() == (whole == moved).tolist()
    assert not same[1029]


def test_an_image_that_is_there_twice_may_be_found_as_either() -> None:
    draw = np.random.default_rng(2)
    once = draw.standard_normal((600, 48)).astype(np.float32)
    dense = np.concatenate([once, once])
    assert same_neighbour(dense, dense.copy()).all()
    shuffled = dense[:, draw.permutation(48)]  # the same cosines, summed in another order
    assert same_neighbour(dense, shuffled).mean() > 0.999


def test_a_constant_has_no_neighbours() -> None:
    dense = np.random.default_rng(0).standard_normal((5, 4))
    assert not same_neighbour(dense, np.ones((5, 4))).any()
    assert not same_neighbour(dense, np.zeros((5, 4))).any()


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


def test_a_graph_tells_its_task_by_its_outputs() -> None:
    assert task_of({"features": 1, "kept_3": 2}) is FEATURES
    assert task_of(["logits"]) is task_of([]) is LOGITS


def test_what_is_expected_of_features_is_one_for_themselves() -> None:
    dense = np.random.default_rng(0).standard_normal((12, 5))
    assert FEATURES.expected(dense, 2 * dense) == 1.0
    assert FEATURES.expected(dense, np.random.default_rng(1).standard_normal((12, 5))) < 0.9


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (5, 1), (1, 5), (7, 7), (20, 9), (0, 60)])
def test_mcnemar_is_the_sign_test_of_the_images_that_turned(lost: int, won: int) -> None:
    turned = lost + won
    chances = [math.comb(turned, wins) / 2**turned for wins in range(turned + 1)]
    expected = sum(chance for chance in chances if chance <= chances[won] * (1 + 1e-12))
    assert mcnemar(lost, won) == pytest.approx(expected, rel=1e-12)
    assert mcnemar(3000, 2800) == pytest.approx(0.0089, abs=2e-4)  # normal: z = 199 / sqrt(5800)


@given(st.lists(st.floats(0, 20), min_size=2, max_size=40), st.randoms())
def test_a_mean_does_not_depend_on_the_order_to_the_last_bit(values: list[float], chance: Any) -> None:
    other = chance.sample(values, len(values))
    assert mean_interval(values) == mean_interval(other)
    mean, interval = mean_interval(values)
    assert interval is not None
    assert mean == pytest.approx(np.mean(values), abs=1e-12)
    half = 1.959963984540054 * np.std(values, ddof=1) / len(values) ** 0.5
    assert interval == pytest.approx((mean - half, mean + half), abs=1e-9)


def test_the_change_of_accuracy_has_a_paired_interval() -> None:
    turns = np.repeat([-1.0, 1.0, 0.0], [9, 4, 87])
    half = 1.959963984540054 * turns.std() / 10
    assert change_interval(9, 4, 100) == pytest.approx((-0.05 - half, -0.05 + half), abs=0.008)
    more = np.repeat([-1.0, 1.0, 0.0], [10, 5, 87])  # one each way, that few images do not seem to be sure
    half = 1.959963984540054 * more.std() / 102**0.5
    assert change_interval(9, 4, 100) == pytest.approx((more.mean() - half, more.mean() + half))
    assert change_interval(0, 0, 10) == pytest.approx((-0.2309, 0.2309), abs=1e-4)
    assert change_interval(1, 0, 1)[0] == -1
