"""Shards cover every image once and keep batches together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vitrim.recipes.evaluation.shards import Shard, batches, cut


@given(images=st.integers(1, 300), size=st.integers(1, 50), batch=st.integers(1, 9))
def test_every_image_is_in_one_shard_and_in_the_same_batch_whatever_their_size(
    images: int, size: int, batch: int
) -> None:
    found = [part for shard in cut(images, size, batch) for part in batches(shard, batch)]
    assert found == batches(Shard(0, images), batch)
    assert [index for part in found for index in part] == list(range(images))
    assert all(len(part) == batch for part in found[:-1])


def test_what_is_done_is_left_out_and_what_is_half_done_is_not() -> None:
    done = {*range(10), 12, 13}
    assert cut(23, 5, 2, done) == [Shard(6, 12), Shard(12, 18), Shard(18, 23)]
    assert cut(10, 5, 2, done) == []
