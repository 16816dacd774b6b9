"""What an evaluation found: figures of all images, of every class, and the images whose answers moved most."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...exporter.core.errors import InputError
from ...exporter.core.fidelity import Fidelity
from ...exporter.core.inputs import read_json
from ...exporter.core.intervals import change_interval, mcnemar, mean_interval
from ...exporter.core.records import Record, optional
from .shards import Answer

FORMAT = "vitrim-evaluation/1"
MAKER = "vitrim evaluate BUNDLE -o FILE"
_MOVED = 100  # images that are listed


@dataclass(frozen=True)
class ClassAnswers(Record):
    """Answers to the images of one class.

    Attributes:
        index: of the class.
        images: how many there are.
        agreeing: to how many both graphs gave the same answer.
        kl: mean divergence, in nats.
        right_dense, right_pruned: images answered rightly; None without labels.
    """

    index: int
    images: int
    agreeing: int
    kl: float
    right_dense: int | None = optional()
    right_pruned: int | None = optional()

    @property
    def change(self) -> float:
        """Right answers more or fewer than the dense graph's, or without labels other answers, as a share."""
        if self.right_dense is None or self.right_pruned is None:
            return (self.agreeing - self.images) / self.images
        return (self.right_pruned - self.right_dense) / self.images


@dataclass(frozen=True)
class Moved(Record):
    """An image whose answer is another one.

    Attributes:
        index, name: of the image.
        dense, pruned: classes.
        kl: divergence, in nats.
        label: its class, where known.
    """

    index: int
    name: str
    dense: int
    pruned: int
    kl: float
    label: int | None = optional()


@dataclass(frozen=True)
class Evaluation(Record):
    """The pruned graph of a bundle held against its dense one, and both against labels where there are any.

    Attributes:
        format: of this file.
        bundle, bundle_sha256: the folder, and its manifest's hash.
        images, images_sha256: the path, and a hash of what was read there and how it is preprocessed.
        target: of the bundle.
        dense_by, pruned_by: what ran the graphs.
        answers: figures of all images; intervals are of 95 %.
        by: what classes are in `classes`: labels, or without labels the dense graph's answers.
        classes: those that have images, by index.
        moved: images with another answer, largest divergence first; the first 100.
        cpu_only: why only the CPU ran a graph that is meant for something else.
        resumed: images that an earlier run had judged.
        workers: processes, or actors of a cluster; None: as many as the cluster had room for.
        ray: address of the cluster of Ray; None where this machine did the work.
        seconds: that this run took.
        count: images that were asked for; None: all.
        class_file: that says which class folder is which class.
        runtime: that was asked for; None: what runs here.
        version: of vitrim.
        size: of the bundle's graphs, where it has several and not its own was asked for.
    """

    DERIVED = ("top1_change", "top1_change_interval", "mcnemar")

    format: str
    bundle: str
    bundle_sha256: str
    images: str
    images_sha256: str
    target: str
    dense_by: str
    pruned_by: str
    answers: Fidelity
    by: Literal["label", "dense answer"]
    classes: tuple[ClassAnswers, ...]
    moved: tuple[Moved, ...]
    cpu_only: str | None = optional()
    resumed: int = 0
    workers: int | None = 1
    ray: str | None = optional()
    seconds: float = 0.0
    count: int | None = optional()
    class_file: str | None = optional()
    runtime: str | None = optional()
    version: str | None = optional()
    size: str | None = optional()

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"has the format {self.format[:40]!r}, but this vitrim knows {FORMAT}")

    @property
    def worst(self) -> list[ClassAnswers]:
        """Classes, those that lost most first; of as great a loss, those with the larger divergence."""
        return sorted(self.classes, key=lambda one: (one.change, -one.kl, one.index))

    @property
    def command(self) -> list[str]:
        """What repeats it, with any number of workers."""
        words = ["vitrim", "evaluate", self.bundle, "--images", self.images]
        words += [] if self.count is None else ["--count", str(self.count)]
        words += [] if self.class_file is None else ["--classes", self.class_file]
        words += [] if self.runtime is None else ["--runtime", self.runtime]
        return [*words, *([] if self.size is None else ["--size", self.size])]

    @property
    def top1_change(self) -> float | None:
        """Top-1 of the pruned graph less that of the dense one; None without labels."""
        seen = self.answers
        return None if seen.won is None or seen.lost is None else (seen.won - seen.lost) / seen.images

    @property
    def top1_change_interval(self) -> tuple[float, float] | None:
        """Paired: of the images that turned."""
        seen = self.answers
        return None if seen.won is None or seen.lost is None else change_interval(seen.lost, seen.won, seen.images)

    @property
    def mcnemar(self) -> float | None:
        """Exact p of the images that turned wrong and right; None without labels."""
        seen = self.answers
        return None if seen.won is None or seen.lost is None else mcnemar(seen.lost, seen.won)


def is_evaluation(path: str | os.PathLike[str]) -> bool:
    """Whether a file says that it is one."""
    with suppress(InputError):
        data = read_json(path, "evaluation", MAKER)
        return isinstance(data, dict) and str(data.get("format")).startswith("vitrim-evaluation/")
    return False


def read_evaluation(path: str | os.PathLike[str]) -> Evaluation:
    """An evaluation that was written.

    Raises:
        InputError: it is damaged, or of another version.
    """
    return Evaluation.read(path, "evaluation", MAKER)


def figures(answers: Sequence[Answer], labels: Sequence[int] | None) -> Fidelity:
    """Figures of all images. Counts are whole and sums exact, so they do not depend on who judged what, and when.

    Args:
        answers: of at least one image.
        labels: of every image, or None.
    """
    count = len(answers)
    kl, interval = mean_interval([one.kl for one in answers])
    found = None if interval is None else (max(interval[0], 0.0), interval[1])
    agreement = sum(one.same for one in answers) / count
    if labels is None:
        return Fidelity(count, agreement, kl, kl_interval=found)
    right = [(one.dense == label, one.pruned == label) for one, label in zip(answers, labels, strict=True)]
    return Fidelity(
        count,
        agreement,
        kl,
        accuracy_dense=sum(dense for dense, _ in right) / count,
        accuracy_pruned=sum(pruned for _, pruned in right) / count,
        lost=sum(dense and not pruned for dense, pruned in right),
        won=sum(pruned and not dense for dense, pruned in right),
        kl_interval=found,
    )


def by_class(answers: Sequence[Answer], labels: Sequence[int] | None) -> tuple[ClassAnswers, ...]:
    """The same by label, or without labels by the dense graph's answer."""
    groups: dict[int, list[Answer]] = {}
    for at, one in enumerate(answers):
        groups.setdefault(one.dense if labels is None else labels[at], []).append(one)
    return tuple(_class(index, groups[index], labels is not None) for index in sorted(groups))


def _class(index: int, answers: Sequence[Answer], labelled: bool) -> ClassAnswers:
    return ClassAnswers(
        index,
        len(answers),
        sum(one.same for one in answers),
        mean_interval([one.kl for one in answers])[0],
        sum(one.dense == index for one in answers) if labelled else None,
        sum(one.pruned == index for one in answers) if labelled else None,
    )


def moved(answers: Sequence[Answer], names: Sequence[str], labels: Sequence[int] | None) -> tuple[Moved, ...]:
    """Images whose answer is another one, largest divergence first; the first 100."""
    turned = sorted((-one.kl, at) for at, one in enumerate(answers) if not one.same)
    rows = [(at, answers[at]) for _, at in turned[:_MOVED]]
    return tuple(
        Moved(at, names[at], one.dense, one.pruned, one.kl, None if labels is None else labels[at]) for at, one in rows
    )


def in_order(answers: Mapping[int, Answer], images: int) -> list[Answer]:
    """Answers by index of the image; every image has one."""
    return [answers[index] for index in range(images)]


def as_integers(labels: np.ndarray | None) -> list[int] | None:
    """Labels as plain integers."""
    return None if labels is None else [int(label) for label in labels]
