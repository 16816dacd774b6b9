"""What tokens count where they merge, and how they hand on their sizes."""

from __future__ import annotations

import torch

from vitrim.exporter.pruning.methods.selection import BY_SIZE, Weighing, power

SIZES = torch.tensor([[1.0, 2.0, 3.0]])
WORTH = torch.tensor([[4.0, 9.0, 16.0]])


def test_sizes_alone_are_plain() -> None:
    assert BY_SIZE.is_plain
    assert BY_SIZE.mass(SIZES, None) is SIZES
    assert BY_SIZE.mass(None, None) is None  # one each
    assert BY_SIZE.shares(WORTH) is None  # all of it
    assert BY_SIZE.handed(SIZES, WORTH) is SIZES


def test_worth_and_sizes_multiply() -> None:
    by_both = Weighing(WORTH, weight=0.5)
    assert not by_both.is_plain
    found = by_both.mass(SIZES, WORTH)
    assert found is not None
    assert found.tolist() == [[2.0, 6.0, 12.0]]
    by_worth = by_both._replace(sized=False).mass(SIZES, WORTH)
    assert by_worth is not None
    assert by_worth.tolist() == [[2.0, 3.0, 4.0]]


def test_a_share_of_a_size_is_handed_on() -> None:
    sharing = Weighing(WORTH, share=0.5)
    found = sharing.handed(SIZES, WORTH)
    assert found is not None
    assert found.tolist() == [[2.0, 6.0, 12.0]]  # over the shares of what they go into
    assert not sharing.is_plain


def test_the_first_power_is_no_node() -> None:
    assert power(WORTH, 1) is WORTH
    assert power(WORTH, 0.5).tolist() == [[2.0, 3.0, 4.0]]
