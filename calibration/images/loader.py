"""A caller's own loader as a source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ...exporter.core.errors import InputError
from ...exporter.core.preprocess import Preprocess
from .arrays import check_labels
from .in_memory import ArrayImages
from .looks import check_layout, check_values, doubt


class Looks:
    """What a caller's images look like over all batches, told once they have all been seen."""

    def __init__(self, preprocess: Preprocess, name: str = "loader") -> None:
        self._preprocess, self._name = preprocess, name
        self._low, self._high = np.inf, -np.inf
        self._odd: list[str] = []

    def add(self, images: np.ndarray, odd: str | None) -> None:
        """Look at a batch [n, channels, height, width], of which `odd` says why its labels are left out."""
        if len(images):
            self._low, self._high = min(self._low, float(images.min())), max(self._high, float(images.max()))
        self._odd += [] if odd is None or odd in self._odd else [odd]

    def notes(self) -> list[str]:
        """What a person should know."""
        found = [f"no labels from the {self._name}: {odd}" for odd in self._odd[:1]]
        if self._low <= self._high:
            odd = doubt(float(self._low), float(self._high), self._preprocess, f"images of the {self._name}")
            found += [] if odd is None else [odd]
        return found


def from_loader(
    images: Iterable[Any],
    preprocess: Preprocess,
    count: int | None = None,
    name: str = "loader",
    *,
    classes: int | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> ArrayImages:
    """A caller's images as a source: those of a DataLoader, or of any iterable of tensors.

    Args:
        images: batches [n, channels, height, width] or single images [channels, height, width], alone or as
            (images, labels, ...) as datasets give them; preprocessed as the model wants it.
        preprocess: of the model.
        count: how many are taken; None takes all, which have to fit into memory.
        name: what the images are called in reports.
        classes: of the model, which labels are held against.
        note: hears what a person should know.

    Raises:
        InputError: there are none, or they are not the model's input.
    """
    pixels: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    looks, seen = Looks(preprocess, name), 0
    for batch in walk(images):
        one, targets, odd = split_batch(batch, preprocess, classes)
        looks.add(one, odd)
        pixels.append(one)
        labels += [] if targets is None else [targets]
        seen += len(one)
        if count is not None and seen >= count:
            break
    if not seen:
        raise InputError(f"images: the {name} gave no images")
    for text in looks.notes():
        note(text)
    if 0 < len(labels) < len(pixels):
        note(f"no labels from the {name}: only {len(labels)} of {len(pixels)} batches have any")
    whole = np.concatenate(pixels)[:count]
    known = np.concatenate(labels)[:count] if len(labels) == len(pixels) else None
    return ArrayImages(whole, known, preprocess, name)


def walk(images: Any) -> Iterator[Any]:
    """The batches of a caller's loader.

    Raises:
        InputError: it cannot be walked through.
    """
    try:
        return iter(images)
    except TypeError as error:
        raise InputError(
            f"images is a {type(images).__name__}; give a path, a DataLoader or an iterable of tensors"
        ) from error


def split_batch(
    batch: Any, preprocess: Preprocess, classes: int | None = None
) -> tuple[np.ndarray, np.ndarray | None, str | None]:
    """A batch's images, its labels, and why what it brings is no labels.

    Args:
        batch: images, or (images, labels, ...).
        preprocess: of the model.
        classes: of the model, which labels are held against.

    Returns:
        [n, channels, height, width] float32; [n] int64, or None without labels; the reason where something was left
        out that may have been labels.

    Raises:
        InputError: the images have another shape or type than the model's input, or values that no preprocessing
            gives; or labels are no classes of the model.
    """
    images, labels = batch, None
    if isinstance(batch, (tuple, list)) and len(batch) and hasattr(batch[0], "shape"):
        images, labels = batch[0], batch[1] if len(batch) > 1 else None
    values = _as_array(images, "images")
    values = values[None] if values.ndim == 3 else values
    check_layout(values, preprocess, "images: got")
    if len(values):
        check_values(values, preprocess, "images: the tensor")
    found, odd = (None, None) if labels is None else _labels(labels, len(values), classes)
    return np.ascontiguousarray(values, dtype=np.float32), found, odd


def _labels(labels: Any, images: int, classes: int | None) -> tuple[np.ndarray | None, str | None]:
    if not (hasattr(labels, "dtype") or isinstance(labels, int)):
        return None, f"a batch's second part is a {type(labels).__name__}, no tensor of integers"
    found = _as_array(labels, "labels").reshape(-1)
    if found.dtype.kind not in "iu" or len(found) != images:
        return None, f"a batch's second part is {found.dtype} {list(np.shape(labels))}, not one integer an image"
    return check_labels(found, images, classes, "images: the loader's labels"), None


def _as_array(values: Any, what: str) -> np.ndarray:
    """A tensor or array, wherever it is; half precisions of PyTorch as float32.

    Raises:
        InputError: it is something else, or has no values.
    """
    try:
        if hasattr(values, "detach"):
            values = values.detach().cpu()
            values = values.float() if values.is_floating_point() else values
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # meta and sparse tensors, ragged lists
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{what}: got a {type(values).__name__} that cannot be read as an array ({reason})") from error
