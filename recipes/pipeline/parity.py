"""The stage that climbs the ladder: PyTorch's own rungs, graphs as traced, as rewritten, in another precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...exporter.core.errors import ParityError
from ...exporter.core.targets import Target, get_target
from ...exporter.graph.passes.table import rewrite
from ...exporter.graph.trace import trace
from ...exporter.pruning.budget import Budget
from ...exporter.pruning.torch_runner import TorchRunner
from ...exporter.pruning.vit import PrunedViT, deployable
from ...exporter.runtime.parity import Replay, Rung, close, compare, describe_failure, exact, ladder, stage_names
from ...exporter.runtime.runners import OrtRunner, Outputs, run_all, runner_for
from .golden import ends_of, golden_of, on_images
from .graphs import final_graphs
from .kinds import plan_of
from .precision import limits_of
from .stage import Stage

if TYPE_CHECKING:
    from .recipe import ParitySection
    from .view import View

SLIMMED_ATOL = 1e-5


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
        result = climb(view, images, expected)
        (folder / "parity.json").write_text(json.dumps(result, indent=2))
        batch = recipe.export.batch
        count = -(-max(recipe.parity.golden, 1) // batch) * batch
        first = {name: value[:count] for name, value in expected.items()}
        ends = ends_of(recipe.export, view.preprocess)
        golden: dict[str, Any] = golden_of(images[:count], first, ends)
        np.savez(folder / "golden.npz", **golden)

    @staticmethod
    def judge(folder: Path) -> None:
        """A ladder that failed publishes nothing."""
        result = json.loads((folder / "parity.json").read_text())
        if not result["passed"]:
            raise ParityError(describe_failure(result))


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz."""
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def climb(view: View, images: np.ndarray, expected: Outputs) -> dict[str, Any]:
    """The ladder: PyTorch's own rungs, the graph as traced and as rewritten, and in another precision.

    Args:
        view: of the run.
        images: [n, channels, height, width] float32, n a multiple of the batch.
        expected: PyTorch's outputs on them.

    Returns:
        `parity.json`.
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
        (f"onnx: rewritten for {target.name}", graphs.float32["pruned"]),
    ):
        outputs, cpu_only = run(path)
        rung = compare(name, expected, outputs, atol=section.atol, tie=section.tie, replay=replay)
        if budget is not None and not rung.passed and rung.first_offender == "logits":
            batch = images[: recipe.export.batch]
            offender = first_offending_layer(view.model, budget, batch, section.atol, target)
            rung.first_offender = offender or "logits"
        rungs.append(rung)
    extra: dict[str, Any] = {"cpu_only": cpu_only} if cpu_only else {}
    if graphs.proof != graphs.float32["pruned"]:
        limits = limits_of(recipe.precision)
        extra["close"] = {"cosine": limits.cosine, "agreement": limits.agreement}
        name = f"onnx: in {recipe.precision.name}"
        rungs.append(close(name, expected, run(graphs.proof)[0], replay=replay, **extra["close"]))
    return ladder(rungs, section.atol, section.tie, extra)


def eager_rungs(eager: Outputs, expected: Outputs, section: ParitySection) -> list[Rung]:
    """What is compared inside PyTorch, see `reference.Reference`."""
    rungs = []
    if "masked" in eager:
        masked, narrow = {"logits": eager["masked"]}, {"logits": eager["narrow"]}
        rungs.append(compare("torch: narrower = masked", masked, narrow, atol=SLIMMED_ATOL, tie=0.0))
    if "dropped" in eager:
        rungs.append(exact("identity: nothing removed = timm", eager["dense"], eager["nothing_removed"]))
        ours = {name: value[: len(eager["dropped"])] for name, value in expected.items()}
        decided = {name: ours[name] for name in stage_names(ours)}
        dropped = {"logits": eager["dropped"], **decided}
        rungs.append(compare("torch: static = tokens dropped", ours, dropped, atol=section.atol, tie=section.tie))
    return rungs


def lazy_replay(view: View, budget: Budget | None, images: np.ndarray) -> Replay:
    """PyTorch's logits under another runner's decisions; the model is only opened if there are any."""

    def replay(chosen: np.ndarray, kept: dict[str, np.ndarray]) -> np.ndarray:
        runner = TorchRunner(deployable(view.model, budget), 1)
        rows = []
        for row, index in enumerate(chosen):
            wanted = {name: ids[row : row + 1] for name, ids in kept.items()}
            rows.append(runner(images[index : index + 1], wanted)["logits"])
        return np.concatenate(rows)

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
