"""The stage that climbs the ladder: PyTorch's own rungs, graphs as traced, as rewritten, in another precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...exporter.core import layout
from ...exporter.core.answers import TOKENS, task_of
from ...exporter.core.errors import ParityError
from ...exporter.core.targets import Target, get_target
from ...exporter.graph.passes.rewrite import rewrite
from ...exporter.graph.trace import trace
from ...exporter.pruning.budget import Budget
from ...exporter.pruning.torch_runner import TorchRunner
from ...exporter.pruning.vit import PrunedViT
from ...exporter.pruning.whole import deployable
from ...exporter.runtime.choose import runner_for
from ...exporter.runtime.parity import Limits, Rung
from ...exporter.runtime.parity import Parity as Ladder
from ...exporter.runtime.rungs import Replay, close, compare, exact, stage_names
from ...exporter.runtime.runners import OrtRunner, Outputs, on_images, run_all, whole_batches
from ...exporter.runtime.shipped import as_proven, only_answers
from ...exporter.runtime.tokens import same_tokens
from .golden import ends_of, golden_of
from .graphs import final_graphs
from .kinds import outputs_of, plan_of
from .precision import limits_of
from .stage import Stage

if TYPE_CHECKING:
    from ..schema.sections.outputs import ParitySection
    from .view import View

SLIMMED_ATOL = 1e-5
READ_ATOL = 1e-5  # of the largest logit, at least of 1: the same sums, by products of other shapes


class Parity(Stage):
    """`parity.json`, the ladder; `golden.npz`, what travels in the bundle."""

    name = "parity"
    needs = ("calibrate", "reference", "trace", "passes", "forms", "precision")
    reads = ("parity", "precision", "bench.threads", "export")
    takes = ("model", "evaluation")

    @staticmethod
    def make(view: View, folder: Path) -> None:
        """Hold every graph against PyTorch's outputs."""
        recipe, reference = view.recipe, view.folder("reference")
        images = np.load(reference / "images.npy")
        expected = load_arrays(reference / "outputs.npz")
        climb(view, images, expected).write(folder / layout.PARITY)
        count = whole_batches(max(recipe.parity.golden, 1), recipe.export.batch)
        first = {name: value[:count] for name, value in expected.items()}
        ends = ends_of(recipe.export, view.preprocess)
        golden: dict[str, Any] = golden_of(images[:count], first, ends)
        np.savez(folder / layout.GOLDEN, **golden)

    @staticmethod
    def judge(folder: Path) -> None:
        """A ladder that failed publishes nothing."""
        result = Ladder.read(folder / layout.PARITY, "parity report")
        if not result.passed:
            raise ParityError(result.failure)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz."""
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def climb(view: View, images: np.ndarray, expected: Outputs) -> Ladder:
    """The ladder: PyTorch's own rungs, the graph as traced and as rewritten, and in another precision.

    Args:
        view: of the run.
        images: [n, channels, height, width] float32, n a multiple of the batch.
        expected: PyTorch's outputs on them.
    """
    recipe, graphs, budget = view.recipe, final_graphs(view), plan_of(view)
    section, target, threads = recipe.parity, get_target(recipe.export.target), recipe.bench.threads
    replay = lazy_replay(view, budget, images)
    rungs = eager_rungs(load_arrays(view.folder("reference") / "eager.npz"), expected, section)
    cpu_only = None

    def run(path: Path) -> tuple[Outputs, str | None]:
        runner, why = runner_for(path, target, threads)
        return run_all(on_images(runner, view.preprocess), images, runner.batch, view.listener.progress), why

    for name, path in (
        ("onnx: as traced", view.folder("trace") / "pruned.onnx"),
        (f"onnx: rewritten for {target.name}", graphs.float32["proof"]),
    ):
        outputs, cpu_only = run(path)
        rung = compare(name, expected, outputs, atol=section.atol, tie=section.tie, replay=replay)
        if budget is not None and not rung.passed and rung.first_offender == rung.output:
            batch = images[: recipe.export.batch]
            offender = first_offending_layer(view.model, budget, batch, section.atol, target)
            rung = replace(rung, first_offender=offender or rung.output)
        rungs.append(rung)
    held = None
    if graphs.held["proof"] != graphs.float32["proof"]:
        wanted, name = limits_of(recipe.precision), f"onnx: in {recipe.precision.name}"
        held = Limits(wanted.cosine, wanted.agreement)
        outputs = run(graphs.held["proof"])[0]
        rungs.append(close(name, expected, outputs, replay=replay, cosine=held.cosine, agreement=held.agreement))
    if graphs.held["pruned"] != graphs.held["proof"]:
        shipped, ladder = run(graphs.held["pruned"])[0], Ladder(section.atol, section.tie, (), held)
        rungs.append(as_proven("onnx", expected, outputs, shipped, ladder))
    return Ladder(section.atol, section.tie, tuple(rungs), held, cpu_only)


def eager_rungs(eager: Outputs, expected: Outputs, section: ParitySection) -> list[Rung]:
    """What is compared inside PyTorch, see `reference.Reference`."""
    rungs, task = [], task_of(expected)
    if "masked" in eager:
        masked, narrow = {task.output: eager["masked"]}, {task.output: eager["narrow"]}
        rungs.append(compare("torch: narrower = masked", masked, narrow, atol=SLIMMED_ATOL, tie=0.0))
    if "nothing_removed" in eager:
        rungs.append(exact("identity: nothing removed = timm", eager["dense"], eager["nothing_removed"], task))
    if TOKENS in eager:
        whole, again = eager[TOKENS], eager[f"{TOKENS}_again"]
        rungs.append(same_tokens("identity: tokens = timm's", task.output, eager["dense"], whole, again))
    if "read" in eager:
        dense, read = {task.output: eager["dense"]}, {task.output: eager["read"]}
        within = READ_ATOL * max(1.0, float(np.abs(eager["dense"]).max()))
        rungs.append(compare("identity: last block for read tokens", dense, read, atol=within, tie=0.0))
    if "dropped" in eager:
        ours = {name: value[: len(eager["dropped"])] for name, value in expected.items() if name != TOKENS}
        decided = {name: ours[name] for name in stage_names(ours)}
        dropped = {task.output: eager["dropped"], **decided}
        rungs.append(compare("torch: static = tokens dropped", ours, dropped, atol=section.atol, tie=section.tie))
    return rungs


def lazy_replay(view: View, budget: Budget | None, images: np.ndarray) -> Replay:
    """PyTorch's answers under another runner's decisions; the model is only opened if there are any."""

    def replay(chosen: np.ndarray, kept: dict[str, np.ndarray]) -> Outputs:
        runner = TorchRunner(deployable(view.model, budget, outputs_of(view.recipe.export)), 1)
        rows = []
        for row, index in enumerate(chosen):
            wanted = {name: ids[row : row + 1] for name, ids in kept.items()}
            rows.append(only_answers(runner(images[index : index + 1], wanted)))
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return replay


def first_offending_layer(model: Any, budget: Budget, image: np.ndarray, atol: float, target: Target) -> str | None:
    """The first block whose tokens differ from PyTorch's by more than `atol`, from a graph that outputs every block."""
    pruned = PrunedViT(model, budget, ("tokens",))
    rewritten, _ = rewrite(trace(pruned, len(image)), target)
    outputs = OrtRunner(rewritten.SerializeToString())(image)
    with torch.inference_mode():
        tokens = pruned.trace(torch.from_numpy(image), tokens=True).tokens
    for block, expected in tokens.items():
        found = outputs[f"tokens_{block}"]
        if found.shape != tuple(expected.shape) or not np.abs(found - expected.numpy()).max() <= atol:
            return f"tokens_{block}"
    return None
