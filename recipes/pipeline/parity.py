"""The parity ladder of a run: identity, torch, ONNX before and after the passes; and what pruning costs in answers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from ...calibration.images.sources import ImageSource, batches
from ...exporter.core.answers import fidelity
from ...exporter.core.preprocess import Preprocess
from ...exporter.core.targets import Target
from ...exporter.graph.passes.rewrite import rewrite
from ...exporter.graph.trace import trace
from ...exporter.pruning.budget import Budget
from ...exporter.pruning.gates import gated
from ...exporter.pruning.reference import drop_tokens
from ...exporter.pruning.slim import blocks_of, hard_gates, slim
from ...exporter.pruning.vit import PrunedViT, TorchRunner, deployable, replay_of
from ...exporter.pruning.widths import Widths
from ...exporter.runtime.parity import (
    Replay,
    Rung,
    StageAgreement,
    close,
    compare,
    compare_decisions,
    exact,
    ladder,
    stage_names,
)
from ...exporter.runtime.runners import OrtRunner, Outputs, run_all, runner_for
from .golden import on_images
from .graphs import without_stages
from .precision import Limits
from .recipe import ParitySection
from .stage import Listener

EAGER_IMAGES = 8  # the rungs inside PyTorch are exact or nearly so; more images would only take time
SLIMMED_ATOL = 1e-5


def torch_reference(model: Any, budget: Budget | None, images: np.ndarray, batch: int) -> tuple[Outputs, Replay]:
    """Logits, kept ids and gaps of the pruned model in PyTorch, and a replay of other decisions on it."""
    runner = TorchRunner(deployable(model, budget), batch)

    def replay(chosen: np.ndarray, kept: dict[str, np.ndarray]) -> np.ndarray:
        rows = []
        for row, index in enumerate(chosen):
            wanted = {name: ids[row : row + 1] for name, ids in kept.items()}
            rows.append(runner(images[index : index + 1], wanted)["logits"])
        return np.concatenate(rows)

    return run_all(runner, images, batch), replay


def steadiest(model: Any, budget: Budget | None, images: np.ndarray, batch: int) -> np.ndarray:
    """The batch of images whose decisions are farthest from a near-tie.

    A pass is held against the graph before it to the last decision, which a near-tie would not survive.
    """
    outputs = run_all(TorchRunner(deployable(model, budget), batch), images, batch)
    gaps = [gap for name, gap in outputs.items() if name.startswith("gap_")]
    if not gaps:
        return images[:batch]
    return images[np.sort(np.argsort(-np.min(gaps, axis=0))[:batch])]


def slim_rung(dense: Any, widths: Widths, images: np.ndarray) -> Rung:
    """A narrower model against the whole one whose other heads and neurons are multiplied by 0.

    The sliced weights are held, before least squares and fine-tuning change them; in float64, so that nothing but a
    wrong slice can differ (in float32 sums of other lengths round by 2e-5 in a logit of 15).
    """
    few = torch.from_numpy(images[:EAGER_IMAGES]).double()
    whole = copy.deepcopy(dense).double()
    with torch.inference_mode():
        with gated(blocks_of(whole), hard_gates(widths, torch.float64)):
            masked = whole(few).numpy()
        narrow = slim(whole, widths)(few).numpy()
    return compare("torch: narrower = masked", {"logits": masked}, {"logits": narrow}, atol=SLIMMED_ATOL, tie=0.0)


def eager_rungs(
    model: Any, budget: Budget, images: np.ndarray, reference: Outputs, section: ParitySection
) -> list[Rung]:
    """Identity without stages, and the static form against tokens dropped one image at a time."""
    few = torch.from_numpy(images[:EAGER_IMAGES])
    with torch.inference_mode():
        dense = model(few).numpy()
        nothing_removed = PrunedViT(model, without_stages(budget)).trace(few).logits
    assert nothing_removed is not None
    ours = {name: value[: len(few)] for name, value in reference.items()}
    decided = {name: ours[name] for name in stage_names(ours)}
    decisions = replay_of(decided)
    dropped = drop_tokens(model, budget, few, decisions.kept, decisions.merged).numpy()
    return [
        exact("identity: nothing removed = timm", dense, nothing_removed.numpy()),
        compare(
            "torch: static = tokens dropped",
            ours,
            {"logits": dropped, **decided},
            atol=section.atol,
            tie=section.tie,
        ),
    ]


def climb(
    model: Any,
    budget: Budget | None,
    images: np.ndarray,
    batch: int,
    graphs: dict[str, Path],
    section: ParitySection,
    target: Target,
    threads: int | None,
    listener: Listener,
    preprocess: Preprocess,
    slimmed_from: tuple[Any, Widths] | None = None,
    precise: tuple[str, Path, Limits] | None = None,
) -> tuple[dict[str, Any], Outputs]:
    """The ladder up to the rewritten graph.

    Args:
        model: the model whose tokens are pruned.
        budget: the plan; None: its tokens are not pruned.
        images: [n, channels, height, width] float32, n a multiple of `batch`.
        batch: of the graphs.
        graphs: by rung name, the ONNX file to hold against PyTorch.
        section: tolerances.
        target: whose execution providers run the graphs where they start here; and for a graph with all layers as
            outputs, made only when a rung fails.
        threads: onnxruntime threads.
        listener: hears progress.
        preprocess: of the images, for a graph that takes their pixels.
        slimmed_from: the wider model that it was cut from, and how.
        precise: rung name, graph and limits of another precision, held to answers instead of an absolute error.

    Returns:
        `parity.json`, and PyTorch's outputs on the images.
    """
    reference, replay = torch_reference(model, budget, images, batch)
    rungs = [] if slimmed_from is None else [slim_rung(*slimmed_from, images)]
    if budget is not None:
        rungs += eager_rungs(model, budget, images, reference, section)
    cpu_only = None

    def run(path: Path) -> tuple[Outputs, str | None]:
        runner, why = runner_for(path, target, threads)
        return run_all(on_images(runner, preprocess), images, runner.batch, listener.progress), why

    for name, path in graphs.items():
        outputs, cpu_only = run(path)
        rung = compare(name, reference, outputs, atol=section.atol, tie=section.tie, replay=replay)
        if budget is not None and not rung.passed and rung.first_offender == "logits":
            rung.first_offender = first_offending_layer(model, budget, images[:batch], section.atol, target) or "logits"
        rungs.append(rung)
    extra: dict[str, Any] = {"cpu_only": cpu_only} if cpu_only else {}
    if precise is not None:
        name, path, limits = precise
        extra["close"] = {"cosine": limits.cosine, "agreement": limits.agreement}
        rungs.append(close(name, reference, run(path)[0], replay=replay, **extra["close"]))
    return ladder(rungs, section.atol, section.tie, extra), reference


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


def measure_fidelity(
    dense: Path,
    pruned: Path,
    source: ImageSource,
    threads: int | None,
    progress: Callable[[int, int], None],
    preprocess: Preprocess,
    float32: Path | None = None,
) -> dict[str, Any]:
    """Agreement, divergence and accuracy of the pruned graph against the dense one, image by image, streamed.

    Args:
        dense, pruned: graphs.
        source: images, perhaps with labels.
        threads: onnxruntime threads.
        progress: called with (images done, images).
        preprocess: of the images, for graphs that take their pixels.
        float32: the pruned graph in float32, where `pruned` is in another precision: `precision` then says what that
            changed, answers and kept tokens.
    """
    paths = [path for path in (dense, pruned, float32) if path is not None]
    runners = [OrtRunner(str(path), threads=threads) for path in paths]
    logits: list[list[np.ndarray]] = [[] for _ in paths]
    kept: list[tuple[int, list[StageAgreement]]] = []
    done = 0
    for images in batches(source, max(8, runners[0].batch)):
        outputs = [run_all(on_images(runner, preprocess), images, runner.batch) for runner in runners]
        for kind, seen in enumerate(outputs):
            logits[kind].append(seen["logits"])
        if float32 is not None:
            kept.append((len(images), compare_decisions(outputs[2], outputs[1], stage_names(outputs[2]))[0]))
        done += len(images)
        progress(done, len(source))
    whole = [np.concatenate(parts) for parts in logits]
    result = fidelity(whole[0], whole[1], source.labels)
    if float32 is not None:
        changed = {
            stage.output: 1 - sum(count * stages[index].same_tokens for count, stages in kept) / done
            for index, stage in enumerate(kept[0][1])
        }
        own = fidelity(whole[2], whole[1], source.labels)
        result["precision"] = {"agreement": own["agreement"], "kl": own["kl"], "tokens_changed": changed}
        if "accuracy_dense" in own:
            result["precision"]["accuracy_float32"] = own["accuracy_dense"]
    return result


def metadata_of(path: Path) -> dict[str, str]:
    """The `vitrim.*` entries of a graph's metadata."""
    model = onnx.load(path, load_external_data=False)
    return {entry.key.removeprefix("vitrim."): entry.value for entry in model.metadata_props}
