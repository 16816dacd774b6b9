"""What a stage does to the sequence, in numbers; methods' own selections are held in methods/."""

from __future__ import annotations

import torch

from vitrim.exporter.core.layout import PACKED
from vitrim.exporter.pruning.methods.selection import Merge, Selection, Weighing
from vitrim.exporter.pruning.reduce import first_of_each, merged_pairs, pack, reduce

X = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [4.0, 3.0], [8.0, 6.0]]])
KEPT = torch.tensor([[0, 2]])
INTO_LAST = Merge(torch.tensor([[1, 3]]), torch.tensor([[1, 1]]))  # tokens 1 and 3 go into the second that stays


def test_dropping_merging_and_fusing_in_numbers() -> None:
    assert reduce(X, None, Selection(KEPT))[0].tolist() == [[[1.0, 0.0], [4.0, 3.0]]]
    mean, sizes = reduce(X, None, Selection(KEPT, merge=INTO_LAST))
    torch.testing.assert_close(mean, torch.tensor([[[1.0, 0.0], [14 / 3, 3.0]]]))
    assert sizes is not None
    assert sizes.tolist() == [[1.0, 3.0]]
    weighted, sizes = reduce(X, torch.tensor([[1.0, 2.0, 1.0, 3.0]]), Selection(KEPT, merge=INTO_LAST))
    torch.testing.assert_close(weighted, torch.tensor([[[1.0, 0.0], [32 / 6, 21 / 6]]]))
    assert sizes is not None
    assert sizes.tolist() == [[1.0, 6.0]]
    worth = torch.tensor([[9.0, 2.0, 1.0, 1.0]])
    heavy = Merge(INTO_LAST.source, INTO_LAST.target, weighing=Weighing(worth, weight=1))
    weighted, sizes = reduce(X, torch.tensor([[1.0, 2.0, 1.0, 3.0]]), Selection(KEPT, merge=heavy))
    torch.testing.assert_close(weighted, torch.tensor([[[1.0, 0.0], [36 / 8, 21 / 8]]]))
    assert sizes is not None
    assert sizes.tolist() == [[1.0, 6.0]]  # what a token stands for does not hang on what it weighs
    shared = Merge(INTO_LAST.source, INTO_LAST.target, weighing=Weighing(worth, 2.0, sized=False, share=-1.0))
    weighted, sizes = reduce(X, torch.tensor([[1.0, 2.0, 1.0, 3.0]]), Selection(KEPT, merge=shared))
    torch.testing.assert_close(weighted, torch.tensor([[[1.0, 0.0], [20 / 6, 9 / 6]]]))
    assert sizes is not None
    assert sizes.tolist() == [[1.0, 5.0]]  # all of the third's 1 and of the last's 3, and half of the second's 2
    fused, _ = reduce(X, None, Selection(KEPT, fused=torch.tensor([[0.0, 0.5, 0.0, 0.25]])))
    assert fused.tolist() == [[[1.0, 0.0], [4.0, 3.0], [3.0, 1.5]]]


def test_a_merged_token_can_be_as_long_as_the_one_that_stays() -> None:
    rule = Merge(INTO_LAST.source, INTO_LAST.target, "as_long")
    out, sizes = reduce(X, torch.tensor([[1.0, 2.0, 1.0, 3.0]]), Selection(KEPT, merge=rule))
    mean = torch.tensor([32.0, 21.0])
    torch.testing.assert_close(out[0, 1], 5 * mean / mean.norm())
    torch.testing.assert_close(out[0, 0], X[0, 0])
    assert sizes is not None
    assert sizes.tolist() == [[1.0, 6.0]]


def test_mlerp_has_the_length_of_the_longest_and_keeps_no_sizes() -> None:
    rule = Merge(INTO_LAST.source, INTO_LAST.target, "longest")
    out, sizes = reduce(X, None, Selection(KEPT, merge=rule))
    total = torch.tensor([14.0, 9.0])
    torch.testing.assert_close(out[0, 1], 10 * total / total.norm())
    assert sizes is None


def test_an_image_that_does_not_merge_drops_and_says_so() -> None:
    both = X.expand(2, -1, -1)
    merge = Merge(INTO_LAST.source.expand(2, -1), INTO_LAST.target.expand(2, -1), active=torch.tensor([True, False]))
    selection = Selection(KEPT.expand(2, -1), merge=merge)
    out, sizes = reduce(both, None, selection)
    assert out[1].tolist() == [[1.0, 0.0], [4.0, 3.0]]
    assert sizes is not None
    assert sizes.tolist() == [[1.0, 3.0], [1.0, 1.0]]
    ids = torch.tensor([[0, 4, 5, 9]]).expand(2, -1)
    pairs = merged_pairs(ids, selection)
    assert pairs is not None
    assert pairs.tolist() == [[4 * PACKED + 5, 9 * PACKED + 5], [-1, -1]]
    assert int(pack(torch.tensor(4), torch.tensor(5))) == 262149
    assert merged_pairs(ids, Selection(KEPT.expand(2, -1))) is None


def test_of_a_token_that_is_kept_twice_the_first_counts() -> None:
    assert first_of_each(torch.tensor([[0, 3, 3, 3, 7]]), torch.float32).tolist() == [[1, 1, 0, 0, 1]]
