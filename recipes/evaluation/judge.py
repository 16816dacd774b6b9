"""One shard's work: photos are decoded while both graphs answer to those before them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ...calibration.images.sources import ImageSource
from ...exporter.core import layout
from ...exporter.core.answers import LOGITS, divergence, same_top
from ...exporter.core.errors import InputError
from ...exporter.core.preprocess import Preprocess
from ...exporter.core.targets import Precision, get_target
from ...exporter.runtime.choose import runner_for
from ...exporter.runtime.runners import Outputs, Runner, on_images, run_all
from ...exporter.runtime.tensorrt.runner import TrtRunner
from .shards import Answer, Shard, batches

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Task:
    """All that a worker has to know; it can be pickled.

    Attributes:
        bundle: the folder.
        source: the images.
        preprocess: of the bundle.
        classes: of the model.
        target: whose runtime runs the graphs where it is here.
        precision: of the pruned graph.
        threads: of the CPU; None takes all cores.
        engine: whether the bundle's engine answers in place of its pruned graph.
        aside: why what answers says nothing of the bundle's own target, where another runtime is asked for.
        size: of the images, of a bundle of several; None: the bundle's own.
    """

    bundle: Path
    source: ImageSource
    preprocess: Preprocess
    classes: int
    target: str
    precision: Precision
    threads: int | None
    engine: bool = False
    aside: str | None = None
    size: str | None = None


class Judge:
    """Both graphs of a bundle, loaded; or its dense graph and its engine."""

    def __init__(self, task: Task) -> None:
        self._task, self._names = task, task.source.names
        target, files = get_target(task.target), layout.Sized(task.bundle, task.size)
        self.dense, _ = runner_for(files / layout.Kind.DENSE.filename, target, task.threads, cached=True)
        self.pruned: Runner
        self.cpu_only: str | None
        self._held = ExitStack()
        if task.engine:
            engine = TrtRunner(files / layout.ENGINE, files / layout.MODEL)
            self.pruned, self.cpu_only = self._held.enter_context(engine), None
        else:
            self.pruned, why = runner_for(files / layout.MODEL, target, task.threads, task.precision, cached=True)
            self.cpu_only = task.aside or why

    def close(self) -> None:
        """Give a GPU's memory back; it cannot be used after."""
        self._held.close()

    @property
    def batch(self) -> int:
        """Images that both graphs take whole batches of."""
        return int(np.lcm(self.dense.batch, self.pruned.batch))

    def __call__(self, shard: Shard) -> list[Answer]:
        """Answers to a shard's images, in order.

        Raises:
            InputError: an image cannot be read, or a graph answers with no number.
        """
        found: list[Answer] = []
        for indices, images in ahead(self._read, batches(shard, self.batch)):
            dense, pruned = (self._logits(runner, images) for runner in (self.dense, self.pruned))
            for row, index in enumerate(indices):
                found.append(judge(dense[row], pruned[row], self._names[index]))
        return found

    def _read(self, indices: range) -> tuple[range, np.ndarray]:
        return indices, np.stack([self._task.source.read(index) for index in indices])

    def _logits(self, runner: Runner, images: np.ndarray) -> np.ndarray:
        outputs: Outputs = run_all(on_images(runner, self._task.preprocess), images, runner.batch)
        if LOGITS.output not in outputs:
            raise InputError(f"the graph has no output {LOGITS.output}: only a classifier's answers can be evaluated")
        return outputs[LOGITS.output]


def judge(dense: np.ndarray, pruned: np.ndarray, name: str) -> Answer:
    """What two rows of logits [classes] say of one image; by itself, so that its neighbours change no bit of it.

    Raises:
        InputError: one of them is no number.
    """
    for logits, graph in ((dense, "dense"), (pruned, "pruned")):
        if not np.isfinite(logits).all():
            raise InputError(f"the {graph} graph answers {name} with NaN or infinity; `vitrim check` the bundle")
    ours, theirs = dense[None].astype(np.float64), pruned[None].astype(np.float64)
    same, kl = bool(same_top(ours, theirs)[0]), float(divergence(ours, theirs)[0])
    return Answer(int(dense.argmax()), int(pruned.argmax()), same, kl)


def ahead(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map` whose next result is made by a thread while the caller uses the last one."""
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(thread.submit(work, item))
            if len(waiting) > 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
