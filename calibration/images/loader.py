"""Images read ahead by the workers of a PyTorch DataLoader, and a caller's own loader as a source."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ...exporter.core.errors import InputError, VitrimError
from ...exporter.core.preprocess import Preprocess
from .photos import PhotoFiles
from .sources import ArrayImages, EightBit, ImageSource

FEWEST = 64  # images below which starting workers takes longer than it saves
MOST_WORKERS = 4


class _Items:
    """A source as a map-style dataset; a fault comes back as a value, so that its message stays as it is."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> np.ndarray | VitrimError:
        try:
            return self.source.read(index)
        except VitrimError as error:
            return error


def read_batches(source: ImageSource, indices: Sequence[int] | np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Images by index, in batches [size, channels, height, width] float32; the last one may be smaller.

    Raises:
        InputError: an image cannot be read.
    """
    from torch.utils.data import DataLoader

    workers = workers_for(source, len(indices))
    order: Any = [int(index) for index in indices]
    loader: Any = DataLoader(
        _Items(source),  # type: ignore[arg-type]
        batch_size=size,
        sampler=order,
        num_workers=workers,
        collate_fn=list,
        multiprocessing_context="fork" if workers else None,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork.*")  # workers only decode
        batches = iter(loader)
    for items in batches:
        fault = next((item for item in items if isinstance(item, VitrimError)), None)
        if fault is not None:
            raise fault
        yield np.stack(items)


def workers_for(source: ImageSource, count: int) -> int:
    """How many processes decode a source: none for few photos, for what lies in memory, and where none can fork."""
    while isinstance(source, EightBit):
        source = source.source
    if not isinstance(source, PhotoFiles) or count < FEWEST or not sys.platform.startswith("linux"):
        return 0
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)) - 1)


def from_loader(
    images: Iterable[Any], preprocess: Preprocess, count: int | None = None, name: str = "loader"
) -> ArrayImages:
    """A caller's images as a source: those of a DataLoader, or of any iterable of tensors.

    Args:
        images: batches [n, channels, height, width] or single images [channels, height, width], alone or as
            (images, labels, ...) as datasets give them; preprocessed as the model wants it.
        preprocess: of the model.
        count: how many are taken; None takes all, which have to fit into memory.
        name: what the images are called in reports.

    Raises:
        InputError: there are none, or they are not the model's input.
    """
    pixels: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    seen = 0
    for batch in images:
        one, targets = split_batch(batch, preprocess)
        pixels.append(one)
        labels += [] if targets is None else [targets]
        seen += len(one)
        if count is not None and seen >= count:
            break
    if not pixels:
        raise InputError(f"images: the {name} gave no images")
    whole = np.concatenate(pixels)[:count]
    known = np.concatenate(labels)[:count] if len(labels) == len(pixels) else None
    return ArrayImages(whole, known, preprocess, name)


def split_batch(batch: Any, preprocess: Preprocess) -> tuple[np.ndarray, np.ndarray | None]:
    """Images [n, channels, height, width] float32, and labels [n] int64 where a batch brings them.

    Raises:
        InputError: the images have another shape or type than the model's input.
    """
    images, labels = batch, None
    if isinstance(batch, (tuple, list)) and len(batch) and hasattr(batch[0], "shape"):
        images, labels = batch[0], batch[1] if len(batch) > 1 else None
    values = np.asarray(images.detach().cpu() if hasattr(images, "detach") else images)
    values = values[None] if values.ndim == 3 else values
    if values.dtype.kind != "f" or values.ndim != 4 or values.shape[1:] != tuple(preprocess.input_size):
        raise InputError(
            f"images: got {values.dtype} {list(values.shape)}, but the model takes float32 [n, "
            f"{', '.join(map(str, preprocess.input_size))}], preprocessed; see timm.data.create_transform"
        )
    if labels is not None:
        found = np.asarray(labels.detach().cpu() if hasattr(labels, "detach") else labels).reshape(-1)
        labels = found.astype(np.int64) if found.dtype.kind in "iu" and len(found) == len(values) else None
    return np.ascontiguousarray(values, dtype=np.float32), labels
