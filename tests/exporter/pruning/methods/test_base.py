"""What every method has: placement, limits of a stage, and what a plain class gets."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from helpers import make_evidence

from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.methods.base import Method, Placement
from vitrim.exporter.pruning.methods.costs import StageSizes
from vitrim.exporter.pruning.methods.selection import Selection


class First(Method):
    """Says as little as a method may."""

    name = "first"
    about = "keeps the first"

    def select(self, evidence: Any, keep: int, options: Any, parameters: Any) -> Selection:
        """The first tokens."""
        return Selection(None)


FIRST = First()


def test_a_class_that_says_little_gets_the_rest() -> None:
    assert (FIRST.reads, FIRST.paper, FIRST.presets, FIRST.threshold) == ("none", "", (), None)
    assert (FIRST.has_scores, FIRST.merges) == (False, False)
    assert (FIRST.masks_duplicates, FIRST.by_similarity, FIRST.rounds_up) == (False, False, False)
    options, parameters = FIRST.StageOptions(), FIRST.Parameters()
    assert parameters.model_dump() == {"place": "before_mlp"}
    assert FIRST.merge_rule(options, parameters, (0, 12)) is None
    assert (FIRST.proportional(parameters), FIRST.fuses(parameters)) == (False, False)
    assert FIRST.stage_options(16, 8, 0.5, 3) == {}
    assert FIRST.scoring_macs(StageSizes(197, 162, 1, 3, 64, 192), options, parameters) == 0
    assert FIRST.fuse(make_evidence(0, 1, 4, 1), torch.zeros(1, 1, dtype=torch.int64), options, parameters) is None


def test_what_a_class_lacks_is_said_by_its_name() -> None:
    evidence = make_evidence(0, 1, 4, 1)
    with pytest.raises(NotImplementedError, match=r"^first has no scores$"):
        FIRST.score(evidence, FIRST.Parameters())
    with pytest.raises(NotImplementedError, match=r"^first has no threshold$"):
        FIRST.statistic(evidence, FIRST.Parameters())


def test_a_stage_removes_no_prefix_token() -> None:
    assert FIRST.largest_removal(17, 5, Method.Parameters()) == 12
    FIRST.check_stage(17, 5, 5, FIRST.StageOptions(), FIRST.Parameters(), "blocks[2]")
    with pytest.raises(InputError) as caught:
        FIRST.check_stage(17, 4, 5, FIRST.StageOptions(), FIRST.Parameters(), "blocks[2]")
    assert str(caught.value) == (
        "blocks[2] removes 13 of 17 tokens, but one stage of first removes at most 12; keep at least 5"
    )


@pytest.mark.parametrize(
    ("at", "depth", "blocks"),
    [
        (None, 12, None),
        ("every block", 3, (0, 1, 2)),
        ((0.25, 0.5, 0.75), 12, (3, 6, 9)),
        ((0.25, 0.5, 0.75), 4, (1, 2, 3)),
        ((1 / 3, 2 / 3), 3, (1, 2)),
        ((0.58,), 50, (29,)),  # 0.58 * 50 is 28.999... in binary
        ((3 / 12, 5 / 12, 7 / 12, 9 / 12), 24, (6, 10, 14, 18)),
        ((0.25, 0.3), 4, (1,)),  # two that fall together are one
        ((0.0,), 5, (0,)),
    ],
)
def test_shares_of_the_depth_are_blocks(at: Any, depth: int, blocks: tuple[int, ...] | None) -> None:
    assert Placement(at=at).blocks(depth) == blocks


def test_every_third_is_exact_whatever_the_depth() -> None:
    for depth in range(3, 100, 3):
        assert Placement(at=(1 / 3, 2 / 3)).blocks(depth) == (depth // 3, 2 * depth // 3)


def test_the_words_of_a_class_are_the_documented_ones() -> None:
    said = re.findall(r"^        (\w+): ", Method.__doc__ or "", re.M)
    hints = [name for name in Method.__annotations__ if not name.startswith("_")]
    assert sorted(said) == sorted(hints)


def test_a_misspelt_method_names_the_close_match_and_all() -> None:
    with pytest.raises(InputError) as caught:
        get_method("tomee")
    names = "frugal, ppt, tome, tofu, zero_tprune, evit, ats, random, uniform, slice"
    assert str(caught.value) == f"unknown pruning method 'tomee'; did you mean tome? (there are {names})"
    with pytest.raises(InputError, match=r"^unknown pruning method 'x' \(there are frugal, "):
        get_method("x")
