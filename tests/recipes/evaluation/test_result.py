"""Figures of answers: those that `fidelity` counts, exact in any order; and a file that is read back as it was."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vitrim.exporter.core.answers import divergence
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.core.fidelity import fidelity
from vitrim.exporter.core.intervals import mcnemar
from vitrim.recipes.evaluation.judge import judge
from vitrim.recipes.evaluation.result import (
    FORMAT,
    Evaluation,
    by_class,
    figures,
    in_order,
    is_evaluation,
    moved,
    read_evaluation,
)
from vitrim.recipes.evaluation.shards import Answer

DRAW = np.random.default_rng(0)
DENSE = DRAW.standard_normal((200, 4)).astype(np.float32)
PRUNED = (DENSE + 0.5 * DRAW.standard_normal((200, 4))).astype(np.float32)
LABELS = [int(label) for label in np.where(DRAW.random(200) < 0.7, DENSE.argmax(1), DRAW.integers(0, 4, 200))]
ANSWERS = [judge(dense, pruned, "") for dense, pruned in zip(DENSE, PRUNED, strict=True)]
NAMES = [f"{index}.png" for index in range(200)]


def evaluation(labelled: bool = True) -> Evaluation:
    labels = LABELS if labelled else None
    return Evaluation(
        FORMAT, "b", "0", "i", "1", "ort-cpu", "d", "p", figures(ANSWERS, labels),
        "label" if labelled else "dense answer", by_class(ANSWERS, labels), moved(ANSWERS, NAMES, labels),
    )  # fmt: skip


@pytest.mark.parametrize("labels", [LABELS, None])
def test_figures_are_those_of_fidelity(labels: list[int] | None) -> None:
    expected = fidelity(DENSE, PRUNED, None if labels is None else np.array(labels)).to_json()
    found = figures(ANSWERS, labels).to_json()
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key] == (value if isinstance(value, (int, type(None))) else pytest.approx(value, rel=1e-12)), key


def test_they_do_not_depend_on_the_order_to_the_last_bit() -> None:
    together = list(zip(ANSWERS, LABELS, strict=True))
    random.Random(1).shuffle(together)
    mixed, labels = ([one[part] for one in together] for part in (0, 1))
    assert figures(mixed, labels) == figures(ANSWERS, LABELS)
    assert by_class(mixed, labels) == by_class(ANSWERS, LABELS)
    assert in_order(dict(reversed(list(enumerate(ANSWERS)))), 200) == ANSWERS


def test_classes_are_the_labels_or_the_dense_graph_s_answers() -> None:
    for one in by_class(ANSWERS, LABELS):
        own = np.array(LABELS) == one.index
        assert one.images == own.sum()
        assert one.right_dense == (DENSE.argmax(1)[own] == one.index).sum()
        assert one.right_pruned == (PRUNED.argmax(1)[own] == one.index).sum()
        assert one.agreeing == (DENSE.argmax(1) == PRUNED.argmax(1))[own].sum()
        assert one.kl == pytest.approx(divergence(DENSE, PRUNED)[own].mean())
    without = by_class(ANSWERS, None)
    assert [one.images for one in without] == np.bincount(DENSE.argmax(1), minlength=4).tolist()
    assert without[0].right_dense is None


def test_what_moved_most_is_listed_first_and_not_all_of_it() -> None:
    found = moved(ANSWERS, NAMES, LABELS)
    assert len(found) == sum(not one.same for one in ANSWERS)
    assert [one.kl for one in found] == sorted((one.kl for one in found), reverse=True)
    first = found[0]
    assert (first.name, first.label) == (NAMES[first.index], LABELS[first.index])
    assert len(moved([Answer(0, 1, False, 1.0)] * 150, ["x"] * 150, None)) == 100


def test_it_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    for labelled in (True, False):
        made = evaluation(labelled)
        made.write(tmp_path / "e.json")
        assert Evaluation.read(tmp_path / "e.json", "evaluation") == made
    assert (made.top1_change, made.top1_change_interval, made.mcnemar) == (None, None, None)


def test_paired_figures_are_of_the_images_that_turned() -> None:
    made = evaluation()
    lost, won = made.answers.lost, made.answers.won
    assert lost is not None
    assert won is not None
    assert made.mcnemar == mcnemar(lost, won)
    assert made.answers.accuracy_pruned is not None
    assert made.answers.accuracy_dense is not None
    assert made.top1_change == pytest.approx(made.answers.accuracy_pruned - made.answers.accuracy_dense)
    assert made.top1_change_interval is not None
    low, high = made.top1_change_interval
    assert low < made.top1_change < high


def test_another_format_is_refused() -> None:
    data = json.loads(json.dumps(evaluation().to_json())) | {"format": "vitrim-evaluation/2"}
    with pytest.raises(InputError, match="^e.json has the format 'vitrim-evaluation/2', but this vitrim knows"):
        Evaluation.from_json(data, "e.json")


@pytest.mark.parametrize("labelled", [True, False])
def test_classes_that_lost_most_come_first(labelled: bool) -> None:
    found = evaluation(labelled).worst
    assert sorted(found, key=lambda one: one.index) == list(evaluation(labelled).classes)
    changes = [one.change for one in found]
    assert changes == sorted(changes)
    first = found[0]
    if labelled:
        assert first.change == ((first.right_pruned or 0) - (first.right_dense or 0)) / first.images < 0
    else:
        assert first.change == (first.agreeing - first.images) / first.images < 0


def test_it_says_what_repeats_it() -> None:
    assert evaluation().command == ["vitrim", "evaluate", "b", "--images", "i"]
    some = replace(evaluation(), count=9, class_file="c.txt")
    assert some.command[5:] == ["--count", "9", "--classes", "c.txt"]
    sized = replace(evaluation(), runtime="onnxruntime", size="192x256")
    assert sized.command[5:] == ["--runtime", "onnxruntime", "--size", "192x256"]


def test_a_file_is_known_by_its_format(tmp_path: Path) -> None:
    evaluation().write(tmp_path / "e.json")
    assert is_evaluation(tmp_path / "e.json")
    assert read_evaluation(tmp_path / "e.json") == evaluation()
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "none.json").write_text("{")
    assert not any(is_evaluation(tmp_path / name) for name in ("other.json", "none.json", "nowhere.json"))
    with pytest.raises(InputError, match="`vitrim evaluate BUNDLE -o FILE` writes an evaluation"):
        read_evaluation(tmp_path / "none.json")
