"""Images read batch by batch, so that memory stays bounded; photos by the workers of a PyTorch DataLoader."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from ...exporter.core.errors import VitrimError
from .photos import Photos
from .sources import EightBit, ImageSource, Part

FEWEST = 64  # images below which starting workers takes longer than it saves
MOST_WORKERS = 4


def batches(source: ImageSource, size: int) -> Iterator[np.ndarray]:
    """Preprocessed images in order, [size, channels, height, width] float32; the last batch may be smaller.

    Photos are decoded by workers while the caller computes.
    """
    return read_batches(source, range(len(source)), size)


def shuffled(count: int, size: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Indices of `count` images in random order, in batches of at most `size`."""
    return np.array_split(generator.permutation(count), -(-count // size))


def read_some(source: ImageSource, indices: Sequence[int] | np.ndarray) -> np.ndarray:
    """Images [n, channels, height, width] float32 by index."""
    return np.concatenate(list(read_batches(source, indices, 32)))


def read_all(source: ImageSource) -> np.ndarray:
    """All images at once, [n, channels, height, width] float32; for small sources."""
    return read_some(source, range(len(source)))


def read_batches(source: ImageSource, indices: Sequence[int] | np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Images by index, in batches [size, channels, height, width] float32; the last one may be smaller.

    Raises:
        InputError: an image cannot be read.
    """
    workers, stopped = workers_for(source, len(indices)), False
    order = [int(index) for index in indices]
    if not workers:  # no PyTorch either, which an ONNX file alone does without
        yield from (
            np.stack([source.read(index) for index in order[at : at + size]]) for at in range(0, len(order), size)
        )
        return
    from torch.utils.data import DataLoader

    loader: Any = DataLoader(
        _Items(source),  # type: ignore[arg-type]
        batch_size=size,
        sampler=takewhile(lambda index: not stopped, order),
        num_workers=workers,
        collate_fn=list,
        multiprocessing_context="fork",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork.*")  # workers only decode
        batches = iter(loader)
    try:
        for items in batches:
            fault = next((item for item in items if isinstance(item, VitrimError)), None)
            if fault is not None:
                raise fault
            yield np.stack(items)
    finally:  # workers that have something left to say are waited for, 5 s each
        stopped = True
        for _ in batches:
            pass


def workers_for(source: ImageSource, count: int) -> int:
    """How many processes decode a source: none for few photos, for what lies in memory, and where none can fork."""
    while isinstance(source, EightBit | Part):
        source = source.source
    if not isinstance(source, Photos) or count < FEWEST or not sys.platform.startswith("linux"):
        return 0
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)) - 1)


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
