"""The stage that measures what pruning costs in answers: agreement with the dense model, divergence, accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...calibration.images.reading import batches
from ...calibration.images.sources import ImageSource
from ...exporter.core import layout
from ...exporter.core.answers import TOKENS, task_of
from ...exporter.core.errors import InputError
from ...exporter.core.fidelity import Fidelity as Answers
from ...exporter.core.fidelity import FidelityTally, PrecisionChange
from ...exporter.core.preprocess import Preprocess
from ...exporter.core.targets import Target, get_target
from ...exporter.runtime.choose import runner_for
from ...exporter.runtime.parity import StageAgreement
from ...exporter.runtime.rungs import block_of, compare_decisions, stage_names
from ...exporter.runtime.runners import Outputs, on_images, run_all
from ...exporter.runtime.tokens import mean_cosine
from .graphs import final_graphs
from .stage import Stage

if TYPE_CHECKING:
    from .view import View


class Fidelity(Stage):
    """`fidelity.json`."""

    name = "fidelity"
    needs = ("passes", "forms", "precision")
    reads = ("bench.threads", "export.target")
    takes = ("calibration", "evaluation")

    @staticmethod
    def make(view: View, folder: Path) -> None:
        """Run the dense and the pruned graph over the evaluation images."""
        graphs, threads = final_graphs(view), view.recipe.bench.threads
        result = measure_fidelity(
            graphs.final["dense"],
            graphs.held["proof"],
            view.evaluation,
            get_target(view.recipe.export.target),
            threads,
            view.listener.progress,
            view.preprocess,
            graphs.float32["proof"] if "fp32" in graphs.final else None,
        )
        replace(result, on_calibration_images=not view.disjoint).write(folder / layout.FIDELITY)


def measure_fidelity(
    dense: Path,
    pruned: Path,
    source: ImageSource,
    target: Target,
    threads: int | None,
    progress: Callable[[int, int], None],
    preprocess: Preprocess,
    float32: Path | None = None,
) -> Answers:
    """Agreement, divergence and accuracy of the pruned graph against the dense one, image by image, streamed.

    Args:
        dense, pruned: graphs; the pruned one and `float32` tell their stages' decisions.
        source: images, perhaps with labels.
        target: whose runtime runs the graphs where it is here.
        threads: of the CPU.
        progress: called with (images done, images).
        preprocess: of the images, for graphs that take their pixels.
        float32: the pruned graph in float32, where `pruned` is in another precision: `precision` then says what that
            changed, answers and kept tokens.
    """
    paths = [path for path in (dense, pruned, float32) if path is not None]
    runners = [runner_for(path, target, threads)[0] for path in paths]
    tallies: list[FidelityTally] = []
    kept: list[tuple[int, list[StageAgreement]]] = []
    cosines, done = 0.0, 0
    for images in batches(source, max(8, runners[0].batch)):
        outputs = [run_all(on_images(runner, preprocess), images, runner.batch) for runner in runners]
        task = task_of(outputs[0])
        tallies = tallies or [FidelityTally(task), FidelityTally(task)]
        logits = [seen[task.output] for seen in outputs]
        labels = None if source.labels is None else source.labels[done : done + len(images)]
        tallies[0].add(logits[0], logits[1], labels)
        if float32 is not None:
            tallies[1].add(logits[2], logits[1], labels)
            kept.append((len(images), compare_decisions(outputs[2], outputs[1], stage_names(outputs[2]))[0]))
        if TOKENS in outputs[1]:
            cosines += mean_cosine(dense_tokens(outputs[0][TOKENS], outputs[1]), outputs[1][TOKENS]) * len(images)
        done += len(images)
        progress(done, len(source))
    if not tallies:
        raise InputError("there are no images to compare")
    result = replace(tallies[0].result(), tokens=cosines / done if TOKENS in outputs[1] else None)
    if float32 is None:
        return result
    changed = {
        stage.output: 1 - sum(count * stages[index].same_tokens for count, stages in kept) / done
        for index, stage in enumerate(kept[0][1])
    }
    own = tallies[1].result()
    return replace(result, precision=PrecisionChange(own.agreement, own.kl, changed, own.accuracy_dense))


def dense_tokens(dense: np.ndarray, pruned: Outputs) -> np.ndarray:
    """The dense model's tokens that a pruned graph's are held against, [n, tokens, width].

    Args:
        dense: all of them.
        pruned: outputs of the graph, its stages' decisions among them where it gives only the tokens that are left. Of
            what was fused from many tokens there is no dense one, so that is held against zeros, which count nowhere.
    """
    count = pruned[TOKENS].shape[1]
    if count == dense.shape[1]:
        return dense
    last = max((name for name in pruned if name.startswith("kept_")), key=block_of)
    ids = pruned[last]
    found = np.take_along_axis(dense, np.minimum(ids, dense.shape[1] - 1)[:, :, None], axis=1)
    return np.where((ids < dense.shape[1])[:, :, None], found, 0)
