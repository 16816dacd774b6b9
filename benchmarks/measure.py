"""What methods.py, frontier.py, parity.py and photos.py share: models, photos, budgets, answers, intervals, a cache.

DATA holds `deit_tiny_patch16_224.fb_in1k.safetensors`, `vit_tiny_patch16_224.augreg.safetensors` and
`imagenet_sample/WNID/*.jpg`. Photos of even classes are for tuning, so those of odd ones are used here. What was
measured is kept by what it was measured of, so a stopped run goes on where it was; after a change of the methods or of
the passes take another folder.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
import torch

from vitrim.calibration.images.listing import open_images
from vitrim.calibration.images.reading import read_some
from vitrim.calibration.images.sources import ImageSource
from vitrim.calibration.tokens.rules import default_rule
from vitrim.calibration.tokens.solve import from_target
from vitrim.exporter.pruning.budget import BlockTokens, Budget
from vitrim.exporter.pruning.load import create_model, preprocessing
from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.methods.options import parse_parameters
from vitrim.exporter.pruning.shape import ViTShape, describe
from vitrim.exporter.pruning.vit import PrunedViT
from vitrim.recipes.pipeline.open import open_model, open_sources, preprocess_of
from vitrim.recipes.schema.load import load_recipe

MODELS = {
    "DeiT-Ti": ("deit_tiny_patch16_224", "deit_tiny_patch16_224.fb_in1k.safetensors"),
    "ViT-Ti": ("vit_tiny_patch16_224", "vit_tiny_patch16_224.augreg.safetensors"),
}
QUICKSTART = "quickstart"
DRAWS = 4000  # of a bootstrap
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Row:
    """One method in one configuration.

    Attributes:
        title: for the table.
        method: name in the registry.
        parameters: of the method.
        blocks: where it prunes, in a model of twelve blocks; None: the method's rule.
        stages: how many stages its rule places; None: the method's own.
        final: whether the last block, which then runs for the class token alone, is left out by a method that prunes in
            every one.
    """

    title: str
    method: str
    parameters: tuple[tuple[str, Any], ...] = ()
    blocks: tuple[int, ...] | None = None
    stages: int | None = None
    final: bool = True


@dataclass(frozen=True)
class Subject:
    """A model and the photos that it answers.

    Attributes:
        label: of the model.
        shape: of the model.
        images: file with [n, channels, height, width] float32.
        photos: a hash of what they are.
        labels: [n] class indices; None: unknown.
    """

    label: str
    shape: ViTShape
    images: Path
    photos: str
    labels: np.ndarray | None


@functools.cache
def load_model(label: str, data: Path | None) -> Any:
    """The quickstart's model, or one of `MODELS` with its weights.

    Raises:
        click.UsageError: it needs DATA.
    """
    if label == QUICKSTART:
        return open_model(load_recipe(QUICKSTART))
    if data is None:
        raise click.UsageError(f"{label} needs --data: a folder with weights and photos, see benchmarks/measure.py")
    name, file = MODELS[label]
    return create_model(name, checkpoint=data / file)


def open_subject(label: str, data: Path | None, cache: Path, count: int | None = None) -> Subject:
    """A model with its photos, which are decoded once.

    Args:
        count: how many photos, spread over the classes; None: all.
    """
    model = load_model(label, data)
    if label == QUICKSTART:
        recipe = load_recipe(QUICKSTART)
        source = open_sources(recipe, preprocess_of(recipe, model), model.num_classes).evaluation
    else:
        assert data is not None
        source = open_images(
            data / "imagenet_sample", preprocessing(model), classes=1000, every=2, offset=1, count=None
        )
    chosen = np.linspace(0, len(source) - 1, min(count or len(source), len(source))).round().astype(int)
    return as_subject(label, model, source, chosen, cache, photos=source.fingerprint(), count=len(chosen))


def as_subject(
    label: str, model: Any, source: ImageSource, chosen: Sequence[int] | np.ndarray, cache: Path, **what: Any
) -> Subject:
    """A model with some images of a source, which are decoded once.

    Args:
        chosen: indices of the images.
        what: they are, for their name in the cache; `photos` is the source's fingerprint.
    """
    path = kept_file(cache, ".npy", kind="images", label=label, **what)
    if not path.exists():
        keep(path, lambda part: np.save(part, read_some(source, chosen)))
    labels = None if source.labels is None else np.asarray(source.labels)[chosen]
    return Subject(label, describe(model), path, what["photos"], labels)


def budget_of(shape: ViTShape, row: Row, macs: float) -> Budget:
    """The row's largest budget within a cost; its blocks are scaled from twelve.

    Raises:
        InputError: the cost is out of the row's reach.
    """
    parameters = parse_parameters(get_method(row.method), dict(row.parameters)).model_dump(mode="json")
    blocks = None if row.blocks is None else [block * shape.depth // 12 for block in row.blocks]
    rule = default_rule(shape, row.method, parameters, blocks=blocks, stages=row.stages, final=row.final)
    return from_target(shape, row.method, parameters, macs, rule)


def plan_of(budget: Budget | None) -> Any:
    """What of a budget decides the answers, as plain data; None: the dense model."""
    return None if budget is None else budget.model_dump(mode="json", include={"method", "parameters", "blocks"})


def tokens_of(stages: Iterable[BlockTokens]) -> str:
    """Tokens after every one of a budget's stages, by block."""
    return " ".join(f"{row.block}:{row.after}" for row in stages)


@torch.inference_mode()
def answers(label: str, data: Path | None, images: Path, budget: Budget | None) -> np.ndarray:
    """Logits [n, classes] of the pruned model, of the dense one without a budget; on one thread."""
    torch.set_num_threads(1)
    model = load_model(label, data)
    call = model if budget is None else PrunedViT(model, budget)
    whole = np.load(images, mmap_mode="r")
    parts = [call(torch.from_numpy(whole[start : start + 25].copy())) for start in range(0, len(whole), 25)]
    return torch.cat(parts).numpy()


def all_answers(
    wanted: Mapping[Key, tuple[Subject, Budget | None]], data: Path | None, cache: Path, processes: int
) -> dict[Key, np.ndarray]:
    """Logits of every model and budget; what is not kept yet is measured in parallel."""
    paths = {
        key: kept_file(
            cache, ".npy", kind="answers", label=subject.label, images=subject.images.stem, plan=plan_of(plan)
        )
        for key, (subject, plan) in wanted.items()
    }
    todo = {path: wanted[key] for key, path in paths.items() if not path.exists()}
    with ProcessPoolExecutor(processes) as pool:
        running = {
            pool.submit(answers, subject.label, data, subject.images, plan): path
            for path, (subject, plan) in todo.items()
        }
        for number, future in enumerate(as_completed(running)):
            logits, (subject, plan) = future.result(), todo[running[future]]
            keep(running[future], lambda part, logits=logits: np.save(part, logits))
            title = "dense" if plan is None else f"{plan.method} {tokens_of(plan.stages)}"
            click.echo(f"[{number + 1}/{len(todo)}] answers of {subject.label}: {title}")
    return {key: np.load(path) for key, path in paths.items()}


def kept_file(cache: Path, suffix: str, **what: Any) -> Path:
    """Where the result of some work is kept."""
    text = json.dumps(what, sort_keys=True)
    return cache / f"{hashlib.sha256(text.encode()).hexdigest()[:20]}{suffix}"


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Write by renaming, so that a stopped run leaves no half file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    write(part)
    part.replace(path)


def kept_json(path: Path, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What some work gave, done now where it is not kept."""
    if not path.exists():
        found = work()
        keep(path, lambda part: part.write_text(json.dumps(found)))
    kept: dict[str, Any] = json.loads(path.read_text())
    return kept


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of a mean; of differences on the same photos it is the paired one."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (DRAWS, len(values)))].mean(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def in_percent(values: np.ndarray) -> str:
    """A mean of shares, or of their differences, in percent and with its interval, for a table."""
    low, high = interval(values.astype(float))
    return f"{100 * values.mean():.1f} ({100 * low:.1f} to {100 * high:.1f})"


def command(data: Path | None) -> str:
    """The command line that is running, without the folder that DATA is here."""
    return f"python {shlex.join(word if word != str(data) else 'DATA' for word in sys.argv)}"
