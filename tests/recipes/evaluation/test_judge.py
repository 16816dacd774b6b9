"""A judge says of every image what numpy says of it, whatever the shard that it comes in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from evaluated_bundles import BATCH, CLASSES, PREPROCESS, logits, make_bundle, make_photos

from vitrim.calibration.images.listing import open_images
from vitrim.exporter.core.answers import divergence
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.preprocess import Preprocess
from vitrim.recipes.evaluation.judge import Judge, Task, ahead, judge
from vitrim.recipes.evaluation.shards import Shard


def task_for(folder: Path, output: str = "logits", photos: int = 7) -> Task:
    preprocess = Preprocess.from_dict(PREPROCESS)
    source = open_images(make_photos(folder / "photos", photos), preprocess, classes=CLASSES)
    return Task(make_bundle(folder / "b", output), source, preprocess, CLASSES, "ort-cpu", "fp32", 1)


def test_answers_are_those_of_both_graphs(tmp_path: Path) -> None:
    found = Judge(task_for(tmp_path))(Shard(0, 7))
    dense, pruned = (logits(tmp_path / "photos", pruned) for pruned in (False, True))
    assert [one.dense for one in found] == dense.argmax(1).tolist()
    assert [one.pruned for one in found] == pruned.argmax(1).tolist()
    assert [one.same for one in found] == (dense.argmax(1) == pruned.argmax(1)).tolist()
    np.testing.assert_allclose([one.kl for one in found], divergence(dense, pruned), rtol=1e-4, atol=1e-6)


def test_an_image_has_the_same_answer_to_the_last_bit_in_any_shard(tmp_path: Path) -> None:
    work = Judge(task_for(tmp_path))
    assert work.batch == BATCH
    whole = work(Shard(0, 7))
    assert [one for start in range(0, 7, 2) for one in work(Shard(start, min(start + 2, 7)))] == whole
    assert work(Shard(0, 4)) + work(Shard(4, 7)) == whole


def test_no_number_and_no_classifier_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="^the pruned graph answers a.png with NaN or infinity"):
        judge(np.zeros(3, np.float32), np.array([0, np.nan, 1], np.float32), "a.png")
    with pytest.raises(InputError, match="^the graph has no output logits"):
        Judge(task_for(tmp_path, "features"))(Shard(0, 2))


def test_the_next_one_is_made_while_the_last_one_is_used_and_no_more() -> None:
    begun: list[int] = []
    second = threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            second.set()
        return 2 * item

    found: Iterator[int] = ahead(work, range(4))
    assert next(found) == 0
    assert second.wait(10)
    assert 2 not in begun
    assert list(found) == [2, 4, 6]


def test_what_the_thread_raises_reaches_the_caller() -> None:
    def work(item: int) -> int:
        raise InputError("this photo is damaged")

    with pytest.raises(InputError, match="^this photo is damaged$"):
        list(ahead(work, [1, 2, 3]))
