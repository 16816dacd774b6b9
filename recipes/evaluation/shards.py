"""Images in shards, and what is known of an image once it has been judged."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass

SHARD = 100  # images


@dataclass(frozen=True)
class Answer:
    """What both graphs said to one image.

    Attributes:
        dense, pruned: their classes.
        same: whether they agree, see `core.answers.same_top`.
        kl: divergence of the pruned graph from the dense one, in nats.
    """

    dense: int
    pruned: int
    same: bool
    kl: float


@dataclass(frozen=True)
class Shard:
    """Images `start` to `stop`, without `stop`, judged and kept as one."""

    start: int
    stop: int


def cut(images: int, size: int, batch: int, done: Container[int] = ()) -> list[Shard]:
    """Shards of images that are not all done.

    They begin at multiples of the graphs' batch: an image then has the same neighbours in its batch whatever the size
    of the shards, and so the same answers to the last bit.

    Args:
        images: how many there are.
        size: images of a shard, rounded up to whole batches.
        batch: of the graphs.
        done: indices of images that need no work.
    """
    whole = math.ceil(size / batch) * batch
    shards = [Shard(start, min(start + whole, images)) for start in range(0, images, whole)]
    return [shard for shard in shards if not all(index in done for index in range(shard.start, shard.stop))]


def batches(shard: Shard, batch: int) -> Sequence[range]:
    """Indices of a shard's images by batch of the graphs; the last one may be short."""
    return [range(at, min(at + batch, shard.stop)) for at in range(shard.start, shard.stop, batch)]
