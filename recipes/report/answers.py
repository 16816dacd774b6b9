"""Answers of the dense and the pruned model on a bundle's golden images, and which of them to show. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...exporter.core.answers import divergence, log_softmax, same_top
from ...exporter.core.errors import EnvironmentLackError, InputError
from ...exporter.core.layout import Kind
from ...exporter.core.targets import get_target
from ...exporter.runtime.choose import runner_for
from ...exporter.runtime.runners import run_all
from .sources import BundleFacts


@dataclass(frozen=True)
class Answer:
    """One image's answers.

    Attributes:
        image: its place among the golden images.
        pruned, pruned_probability: class and its probability, by PyTorch's pruned reference.
        dense, dense_probability: of the dense graph; None where it could not be run.
        changed: whether the class is another one; None where the dense graph was not run.
        kl: divergence from the dense answer, in nats.
    """

    image: int
    pruned: int
    pruned_probability: float
    dense: int | None = None
    dense_probability: float | None = None
    changed: bool | None = None
    kl: float | None = None


@dataclass(frozen=True)
class Answers:
    """Answers on all golden images.

    Attributes:
        each: in the images' order.
        lacking: why there are no dense answers; None where there are.
    """

    each: tuple[Answer, ...]
    lacking: str | None

    @property
    def changed(self) -> int:
        """How many images have another class than by the dense model."""
        return sum(bool(one.changed) for one in self.each)


def answers_of(facts: BundleFacts) -> Answers:
    """Compare the golden answers with those of the bundle's dense graph, which is run here where a runtime is."""
    pruned = facts.golden.get("logits")
    if pruned is None:
        return Answers((), "the model has no classifier, so there are no answers to compare")
    shares, best = np.exp(log_softmax(pruned)), pruned.argmax(axis=1)
    plain = [Answer(at, int(top), float(shares[at, top])) for at, top in enumerate(best)]
    try:
        dense = _dense_logits(facts)
    except (EnvironmentLackError, InputError) as error:
        return Answers(tuple(plain), f"the dense graph was not run: {error}")
    theirs, tops = np.exp(log_softmax(dense)), dense.argmax(axis=1)
    agree, far = same_top(dense, pruned), divergence(dense, pruned)
    found = [
        replace(
            one,
            dense=int(tops[at]),
            dense_probability=float(theirs[at, tops[at]]),
            changed=not bool(agree[at]),
            kl=max(float(far[at]), 0.0),
        )
        for at, one in enumerate(plain)
    ]
    return Answers(tuple(found), None)


def _dense_logits(facts: BundleFacts) -> np.ndarray:
    """[n, classes] of the dense graph on the golden images.

    Raises:
        InputError, EnvironmentLackError: it cannot be run.
    """
    path = facts.folder / Kind.DENSE.filename
    if Kind.DENSE.filename not in facts.manifest.files:
        raise InputError(f"{facts.folder} has no {path.name}")
    target = facts.manifest.resolved_target
    runner, _ = runner_for(path, target if target.runtime == "openvino" else get_target("ort-cpu"))
    images = facts.golden["image"]
    if images.dtype.kind == "f":
        images = images.astype(runner.dtype)
    return run_all(runner, images, runner.batch)["logits"]


def chosen(answers: Answers, count: int) -> list[Answer]:
    """Images to show: up to half of them are changed answers, the farthest first; the rest are typical.

    Typical are those whose divergence is nearest to the median; without dense answers, the first ones.
    """
    if answers.lacking is not None:
        return list(answers.each[:count])
    changed = sorted((one for one in answers.each if one.changed), key=lambda one: -(one.kl or 0.0))
    steady = [one for one in answers.each if not one.changed]
    middle = float(np.median([one.kl or 0.0 for one in steady])) if steady else 0.0
    steady.sort(key=lambda one: abs((one.kl or 0.0) - middle))
    first = changed[: max((count + 1) // 2, count - len(steady))]
    return [*first, *steady[: count - len(first)]]
