"""What a recipe names, or Python hands over, opened: the model, calibration images, evaluation images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np

from ...calibration.images.generated import make_images
from ...calibration.images.in_memory import ArrayImages
from ...calibration.images.listing import open_images
from ...calibration.images.photos import Photos
from ...calibration.images.sources import EightBit, ImageSource, choose, halves
from ...exporter.core.errors import InputError
from ...exporter.core.preprocess import Preprocess
from ...exporter.pruning.budget import Budget
from ...exporter.pruning.checkpoints.hub import digest, is_hub_name
from ...exporter.pruning.checkpoints.tensors import Choice
from ...exporter.pruning.load import create_model, preprocessing
from ..schema.recipe import Recipe
from ..schema.sections.inputs import ImagesSection

LARGEST_EVALUATION = 256


@dataclass(frozen=True)
class Sources:
    """Images of a run.

    Attributes:
        calibration: what decisions are made on.
        evaluation: what agreement and accuracy are measured on.
        disjoint: whether no image is in both.
    """

    calibration: ImageSource
    evaluation: ImageSource
    disjoint: bool


@dataclass(frozen=True)
class Given:
    """What Python hands over instead of naming it in a recipe; None where the recipe says it.

    Attributes:
        model: a timm model in eval mode, as it came.
        plan: its token budget.
        calibration, evaluation: images.
    """

    model: Any = None
    plan: Budget | None = None
    calibration: ImageSource | None = None
    evaluation: ImageSource | None = None


NOTHING = Given()


def open_model(recipe: Recipe, given: Given = NOTHING, note: Callable[[str], None] = lambda text: None) -> Any:
    """The recipe's timm model with its weights, in eval mode; one in an ONNX file is opened by `recover`.

    Args:
        recipe, given: what names it, or is it.
        note: hears what was taken from its checkpoint, where that is not all of it as it is.

    Raises:
        InputError, UnsupportedError, EnvironmentLackError: see `vitrim.exporter.pruning.load.create_model`.
    """
    section = recipe.model
    if section.given:
        if given.model is None:
            raise InputError(
                "model.given: this recipe's model was in memory, handed over in Python; give model.checkpoint: FILE"
            )
        return given.model
    refuse_another_file("checkpoint", section.checkpoint, section.sha256)
    on_hub = section.pretrained and section.name is not None and is_hub_name(section.name)
    return create_model(
        None if on_hub else section.name,
        args=section.args,
        checkpoint=section.name if on_hub else section.checkpoint,
        pretrained=section.pretrained and not on_hub,
        random=section.random,
        choice=Choice(section.ema, section.state),
        note=note,
    )


def refuse_another_file(key: str, path: str | None, wanted: str | None) -> None:
    """Refuse another file of weights than a recipe was made with.

    Args:
        key: of `model`, for the message.
        path: that it names; None, or one that is not there, is not looked at.
        wanted: SHA-256; None: any is taken.

    Raises:
        InputError: it is another one.
    """
    found = digest(path) if path is not None and wanted is not None else None
    if wanted is not None and found is not None and found != wanted:
        raise InputError(
            f"model.{key}: {path} is not the file that this recipe was made with (SHA-256 {found[:12]}..., not "
            f"{wanted[:12]}...); fetch that one, or take model.sha256 out"
        )


def preprocess_of(recipe: Recipe, model: Any) -> Preprocess:
    """The model's own preprocessing with the recipe's overrides."""
    return preprocessing(model, recipe.model.preprocess.model_dump())


def open_section(
    section: ImagesSection,
    preprocess: Preprocess,
    classes: int,
    where: str = "images",
    note: Callable[[str], None] = lambda text: None,
) -> ImageSource:
    """Images of one section of a recipe.

    Args:
        section: which.
        preprocess, classes: of the model.
        where: the section's name, for messages.
        note: hears how labels came about, and which files are no pictures.

    Raises:
        InputError: see `vitrim.calibration.images.listing.open_images`.
    """
    if section.generator is None:
        assert section.path is not None
        return open_images(
            section.path,
            preprocess,
            classes=classes or None,
            count=section.count,
            every=section.every,
            offset=section.offset,
            class_file=section.classes,
            where=where,
            note=note,
        )
    assert section.count is not None
    size = preprocess.input_size[1]
    if section.generator == "noise":
        shape = (section.count, *preprocess.input_size)
        noise = np.random.default_rng(section.seed).standard_normal(shape, dtype=np.float32)
        return ArrayImages(noise, None, preprocess, f"noise(seed={section.seed})")
    pixels, labels = make_images(section.count, section.seed, size)
    return ArrayImages(pixels, labels if classes == 10 else None, preprocess, f"shapes(seed={section.seed})")


def open_sources(
    recipe: Recipe,
    preprocess: Preprocess,
    classes: int,
    given: Given = NOTHING,
    note: Callable[[str], None] = lambda text: None,
) -> Sources:
    """Calibration and evaluation images; without an `evaluate` section, what `images` leaves over of its source.

    For an outcome, which wants as many to judge by as to decide on, a source that is named alone is halved instead.

    A graph that takes 8-bit pixels is evaluated on images that are such pixels. `note` hears everything once, how
    labels came about and which files are no pictures.
    """
    said: set[str] = set()

    def once(text: str) -> None:
        if text not in said:
            said.add(text)
            note(text)

    sources = _open_sources(recipe, preprocess, classes, given, once)
    if recipe.export.input == "float32":
        return sources
    return replace(sources, evaluation=EightBit(sources.evaluation, preprocess))


def _open_sources(
    recipe: Recipe, preprocess: Preprocess, classes: int, given: Given, note: Callable[[str], None]
) -> Sources:
    images = recipe.images
    if _is_halved(recipe, given):
        return _halved(recipe, preprocess, classes, given, note)
    calibration = _calibration(images, preprocess, classes, given, note)
    if given.evaluation is not None or recipe.evaluate is not None:
        evaluation = given.evaluation
        if recipe.evaluate is not None and not recipe.evaluate.given:
            evaluation = open_section(recipe.evaluate, preprocess, classes, "evaluate", note)
        if evaluation is None:
            raise InputError("evaluate.given: these images were in memory, handed over in Python; give evaluate.path")
        return Sources(calibration, evaluation, not _overlap(calibration, evaluation))
    if images.given:
        return Sources(calibration, calibration, False)
    if images.generator is not None:
        other = images.model_copy(update={"seed": images.seed + 1, "count": images.count if recipe.outcome else 64})
        return Sources(calibration, open_section(other, preprocess, classes), True)
    if not isinstance(calibration, Photos):  # an .npz is not read again for what is left of it
        return Sources(calibration, calibration, False)
    everything = open_section(images.model_copy(update={"count": None, "every": 1, "offset": 0}), preprocess, classes)
    taken = set(calibration.names)
    if not isinstance(everything, Photos) or len(everything) == len(taken):
        return Sources(calibration, calibration, False)
    left = [index for index, name in enumerate(everything.names) if name not in taken]
    picked = [left[index] for index in choose(len(left), count=LARGEST_EVALUATION)]
    labels = None if everything.labels is None else everything.labels[picked]
    return Sources(calibration, everything.part(picked, labels), True)


def _calibration(
    images: ImagesSection, preprocess: Preprocess, classes: int, given: Given, note: Callable[[str], None]
) -> ImageSource:
    """Images that were handed over, or those that the section names."""
    found = given.calibration if images.given else open_section(images, preprocess, classes, note=note)
    if found is None:
        raise InputError("images.given: this recipe's images were in memory, handed over in Python; give images.path")
    return found


def _overlap(one: ImageSource, other: ImageSource) -> bool:
    """Whether an image is in both: by name, or by content where arrays have no names of their own."""
    if isinstance(one, ArrayImages) and isinstance(other, ArrayImages):
        first, second = ({sha256(image.tobytes()).digest() for image in found.pixels} for found in (one, other))
        return bool(first & second)
    return bool(set(one.names) & set(other.names))


def _is_halved(recipe: Recipe, given: Given) -> bool:
    """Whether one source has to do for both, for an outcome."""
    images = recipe.images
    alone = given.evaluation is None and recipe.evaluate is None and images.generator is None
    return recipe.outcome is not None and alone and images.every == 1


def _halved(recipe: Recipe, preprocess: Preprocess, classes: int, given: Given, note: Callable[[str], None]) -> Sources:
    """Even images to decide on, odd ones to judge by: of each as many as the recipe's count."""
    images = recipe.images
    both = images.model_copy(update={"count": None if images.count is None else 2 * images.count})
    whole = _calibration(both, preprocess, classes, given, note)
    if len(whole) < 2:
        raise InputError("there is one image, but an outcome is decided on some and judged on others; give more")
    even, odd = halves(whole)
    note(
        f"no evaluate section: of the images, {len(even)} even ones decide on the outcome and {len(odd)} odd ones judge"
    )
    return Sources(even, odd, True)
