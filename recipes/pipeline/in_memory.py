"""For someone who holds a model: pruned, evaluated and exported from Python, without a recipe's file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import nn

from ...calibration.images.in_memory import ArrayImages
from ...calibration.images.loader import Looks, from_loader, split_batch, walk
from ...calibration.images.reading import batches
from ...calibration.images.sources import ImageSource
from ...exporter.core.bounds import BATCH, require_within
from ...exporter.core.errors import InputError
from ...exporter.core.fidelity import Fidelity, FidelityTally, doubt_labels
from ...exporter.core.outcome import MEASURES
from ...exporter.core.preprocess import Preprocess
from ...exporter.pruning.budget import first_problem
from ...exporter.pruning.load import preprocessing
from ...exporter.pruning.shape import model_name, task_of_model
from ...exporter.pruning.torch_runner import evaluating
from ...exporter.pruning.vit import PrunedViT
from ..listener import Listener, Silence
from ..schema.keywords import export_keywords, images_keywords, prune_keywords
from ..schema.load import recipe_from
from ..schema.recipe import Recipe
from ..schema.sections.inputs import ImagesSection
from ..stages.calibrate import check_prune, make_plan
from ..stages.plans.outcome import judge, refuse_unlabelled
from .exported import Exported
from .open import Given, Sources, open_section, open_sources
from .run import export

CALIBRATION, EVALUATION = 64, 256  # images that are taken from a caller's loader, at the most
Images = Any  # a path, an `ImageSource`, a DataLoader or any iterable of tensors


def prune(
    model: nn.Module,
    method: str | None = None,
    *,
    images: Images = None,
    evaluate: Images = None,
    listener: Listener | None = None,
    **keywords: Any,
) -> PrunedViT:
    """See `vitrim.api.prune`."""
    section = prune_keywords(method, keywords)
    data = {"model": {"name": model_name(model), "given": True}, "images": {"given": True}, "prune": section}
    recipe = recipe_from(data, "prune")
    assert recipe.prune is not None
    check_prune(recipe.prune)
    heard = listener or Silence()
    sources = _sources_for(model, recipe, images, evaluate, heard)
    source = None if sources is None else sources.calibration
    with evaluating(model), tempfile.TemporaryDirectory(prefix="vitrim-") as folder:
        budget = make_plan(recipe, model, source, Path(folder), heard, model)
        if sources is not None:
            budget = judge(budget, (model, model), sources.evaluation, sources.disjoint, heard)
    return PrunedViT(model, budget)


def _sources_for(
    model: nn.Module, recipe: Recipe, images: Images, others: Images, listener: Listener
) -> Sources | None:
    """What a plan is decided on and, for an outcome, judged on; None where nothing is given."""
    if others is not None and recipe.outcome is None:
        raise InputError(
            f"prune: evaluate= is what an outcome is judged on, and goes with one of {', '.join(MEASURES)}; take it out"
        )
    if images is None:
        return None
    preprocess, classes, count = preprocessing(model), classes_of(model), recipe.images.count
    if recipe.outcome is not None and others is None and count is not None:
        count *= 2  # one half decides, the other judges
    decided = open_given(images, preprocess, classes, count, listener.note)
    if recipe.outcome is None:
        return Sources(decided, decided, False)
    judged_on = None if others is None else open_given(others, preprocess, classes, recipe.images.count, listener.note)
    given = Given(model, None, decided, judged_on)
    sources = open_sources(recipe, preprocess, classes, given, listener.note)
    refuse_unlabelled(recipe, {"images": sources.calibration, "evaluate": sources.evaluation}, classes)
    return sources


def evaluate(
    pruned: nn.Module,
    images: Images,
    reference: nn.Module | None = None,
    *,
    batch: int = 32,
    listener: Listener | None = None,
) -> Fidelity:
    """See `vitrim.api.evaluate`."""
    dense = reference if reference is not None else getattr(pruned, "model", None)
    if dense is None:
        raise InputError("evaluate: give reference=, the dense model that answers are compared with")
    require_within("batch", batch, *BATCH)
    preprocess, heard = preprocessing(dense), listener or Silence()
    tally, done = FidelityTally(task_of_model(dense)), 0
    total = len(images) if hasattr(images, "__len__") and not isinstance(images, str) else 0
    with torch.inference_mode(), evaluating(dense), evaluating(pruned):
        for pixels, labels in _pieces(images, preprocess, classes_of(dense), batch, heard.note):
            outputs = [_answers(model, pixels) for model in (dense, pruned)]
            tally.add(outputs[0], outputs[1], labels)
            done += 1
            heard.progress(done, max(total, done))
    if not done:
        raise InputError("evaluate: there are no images")
    found = tally.result()
    doubtful = doubt_labels(found, classes_of(dense))
    if doubtful is not None:
        heard.note(doubtful)
    return found


def recipe_of(model: nn.Module, keywords: Mapping[str, Any], listener: Listener | None = None) -> tuple[Recipe, Given]:
    """A recipe for a model in memory, and what it does not name.

    Args:
        model: a timm model, or what `prune` made of one.
        keywords: see `keywords.export_keywords`; `images` and `evaluate` may be loaders too.
        listener: hears what is odd about them.

    Raises:
        InputError: a key is not known, there are no images, or the model is not on the CPU in float32.
    """
    plan = model.budget if isinstance(model, PrunedViT) else None
    dense: Any = model.model if isinstance(model, PrunedViT) else model
    _refuse_elsewhere(dense)
    loaders = {key: keywords[key] for key in ("images", "evaluate") if not _is_plain(keywords.get(key))}
    data = export_keywords({key: value for key, value in keywords.items() if key not in loaders})
    data["model"] = {"name": model_name(dense), "given": True} | data.get("model", {})
    if plan is not None:
        data["prune"] = {"given": True}
    if "images" not in loaders and "images" not in data:
        raise InputError(
            "export: give images=, a folder of photos or a loader, which decisions are proven and timed on"
        )
    preprocess, note = preprocessing(dense), (listener or Silence()).note
    sources: dict[str, ImageSource] = {}
    if "images" in loaders:
        data["images"] = {"given": True}
        source = open_given(loaders["images"], preprocess, classes_of(dense), CALIBRATION + EVALUATION, note)
        sources["calibration"] = source
        if "evaluate" not in keywords:
            sources["calibration"], sources["evaluation"] = _parts(source)
    if "evaluate" in loaders:
        data["evaluate"] = {"given": True}
        sources["evaluation"] = open_given(loaders["evaluate"], preprocess, classes_of(dense), EVALUATION, note)
    return recipe_from(data, "export"), Given(dense, plan, sources.get("calibration"), sources.get("evaluation"))


def export_model(
    model: nn.Module,
    out: str | os.PathLike[str],
    keywords: Mapping[str, Any],
    *,
    engine_mode: str | None = None,
    listener: Listener | None = None,
    command: Sequence[str] | None = None,
    force: bool = False,
    report: str | os.PathLike[str] | bool | None = False,
) -> Exported:
    """See `vitrim.api.export`, of a model in memory."""
    recipe, given = recipe_of(model, keywords, listener)
    with evaluating(given.model):
        return export(
            recipe,
            out,
            engine_mode=engine_mode,
            listener=listener,
            command=command,
            given=given,
            force=force,
            report=report,
        )


def open_given(
    images: Images,
    preprocess: Preprocess,
    classes: int,
    count: int | None,
    note: Callable[[str], None] = lambda text: None,
) -> ImageSource:
    """A caller's images as a source: a path, a section, a source, a DataLoader or any iterable of tensors."""
    if hasattr(images, "fingerprint") and hasattr(images, "read"):
        source: ImageSource = images
        return source
    if _is_plain(images):
        return open_section(_section(images, count), preprocess, classes, note=note)
    return from_loader(images, preprocess, count, classes=classes or None, note=note)


def _section(images: Images, count: int | None) -> ImagesSection:
    data = images_keywords(images)
    try:
        section = ImagesSection.model_validate({"count": count} | data)
    except ValidationError as error:
        raise InputError(f"images: {first_problem(error)}") from error
    if section.given:
        raise InputError("images.given marks images that were in memory; give the images themselves, or images.path")
    return section


def classes_of(model: Any) -> int:
    """Classes of a timm model; 0 without a classifier, which labels cannot be held against."""
    return int(model.num_classes)


def _is_plain(images: Images) -> bool:
    """Whether images are named, as a recipe would name them."""
    return images is None or isinstance(images, (str, os.PathLike, Mapping))


def _parts(source: ImageSource) -> tuple[ImageSource, ImageSource]:
    """Images to decide on, and others to measure on; the same where there are too few for both."""
    count = min(CALIBRATION, len(source) // 2)
    if count == 0 or not isinstance(source, ArrayImages):
        return source, source
    return source.part(slice(0, count)), source.part(slice(count, None))


def _pieces(
    images: Images, preprocess: Preprocess, classes: int, size: int, note: Callable[[str], None]
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Images and their labels, piece by piece; a loader is read as it comes, and never held."""
    if not _is_plain(images) and not hasattr(images, "fingerprint"):
        looks = Looks(preprocess)
        for batch in walk(images):
            pixels, labels, odd = split_batch(batch, preprocess, classes or None)
            looks.add(pixels, odd)
            yield pixels, labels
        for text in looks.notes():
            note(text)
        return
    source, done = open_given(images, preprocess, classes, None, note), 0
    for pixels in batches(source, size):
        yield pixels, None if source.labels is None else source.labels[done : done + len(pixels)]
        done += len(pixels)


def _answers(model: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """Logits [n, classes] or features [n, width] float32, computed where the model is."""
    first = next(model.parameters(), torch.zeros(()))
    logits: torch.Tensor = model(torch.from_numpy(pixels).to(first.device, first.dtype))
    return logits.float().cpu().numpy()


def _refuse_elsewhere(model: nn.Module) -> None:
    odd = next((p for p in model.parameters() if p.device.type != "cpu" or p.dtype != torch.float32), None)
    if odd is not None:
        raise InputError(
            f"export: the model is {odd.dtype} on {odd.device}; export a float32 copy on the CPU: "
            "copy.deepcopy(model).float().cpu()"
        )
