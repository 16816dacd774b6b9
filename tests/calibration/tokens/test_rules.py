"""Where stages sit: the rule's places, those of methods, and what a recipe gives."""

from __future__ import annotations

import pytest
from helpers import small_vit

from vitrim.calibration.tokens.rules import check_blocks, default_rule
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.load import create_model
from vitrim.exporter.pruning.methods import METHODS, get_method
from vitrim.exporter.pruning.shape import ViTShape, describe


@pytest.fixture(scope="module")
def tiny() -> ViTShape:
    return describe(create_model("deit_tiny_patch16_224", random=0))


def test_no_free_last_stage_where_patches_are_classified() -> None:
    shape = describe(small_vit("vit_base_patch16_224.mae", global_pool="avg", depth=12))
    assert not default_rule(shape, "zero_tprune", {}).final
    token = describe(small_vit(depth=12))
    assert default_rule(token, "zero_tprune", {}).final
    assert not default_rule(token, "zero_tprune", {}, final=False).final
    assert not default_rule(token, "zero_tprune", {"place": "after_block"}).final
    assert not default_rule(token, "zero_tprune", {}, blocks=[3, 11]).final


def test_blocks_and_stages_must_fit(tiny: ViTShape) -> None:
    assert check_blocks([9, 3], 12) == (3, 9)
    with pytest.raises(InputError, match=r"prune\.blocks is \[3, 3\]"):
        check_blocks([3, 3], 12)
    with pytest.raises(InputError, match="from 0 to 11"):
        check_blocks([12], 12)
    two, one = describe(small_vit(depth=2)), describe(small_vit(depth=1))
    for stages, said in ((4, "4"), (None, "3")):  # nobody reads of a number that nobody gave
        with pytest.raises(InputError, match=rf"^a model of 2 blocks has no room for {said} .*give prune\.stages: 1$"):
            default_rule(two, "evit", {}, stages=stages)
    with pytest.raises(InputError, match="a model of 1 blocks has no room for 3 pruning stages; take a deeper model"):
        default_rule(one, "evit", {})


# By method, where its stages sit in twelve blocks and how strong each is when nothing is said.
PLACES = {
    "frugal": ((3, 5, 7, 9), (1.0,) * 4, "rates"),
    "ppt": ((3, 6, 9), (1.0,) * 3, "counts"),
    "tome": (tuple(range(11)), (1.0,) * 11, "counts"),
    "tofu": (tuple(range(11)), (1.0,) * 11, "counts"),
    "zero_tprune": ((3, 6, 8, 10), (1.0,) * 4, "rates"),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_places(tiny: ViTShape, name: str) -> None:
    blocks, weights, sized_by = PLACES.get(name, ((3, 6, 10), (1.25, 1.0, 0.8), "rates"))
    rule = default_rule(tiny, name, {})
    assert rule.blocks == blocks
    assert tuple(stage.weight for stage in rule.stages) == weights
    assert get_method(name).placement.sized_by == sized_by
    assert rule.final  # so every block but the last


def test_a_method_says_what_goes_by_similarity_at_its_own_places_and_at_given_ones(tiny: ViTShape) -> None:
    for given in ({}, {"blocks": [2, 5]}):
        assert {stage.similar for stage in default_rule(tiny, "zero_tprune", {}, **given).stages} == {1.0}
    three = default_rule(tiny, "zero_tprune", {}, stages=3)
    assert [(stage.block, stage.weight, stage.similar) for stage in three.stages] == [
        (3, 1.25, 1.0), (6, 1.0, 1.0), (10, 0.8, 0.3)
    ]  # fmt: skip
    assert {stage.similar for stage in default_rule(tiny, "evit", {}, blocks=[2, 5]).stages} == {0.6}


def test_what_a_recipe_gives_wins(tiny: ViTShape) -> None:
    rule = default_rule(tiny, "zero_tprune", {}, blocks=[9, 3], similar=0.25, iterations=4)
    assert [(stage.block, stage.weight, stage.similar) for stage in rule.stages] == [(3, 1.0, 0.25), (9, 1.0, 0.25)]
    assert default_rule(tiny, "tome", {}, stages=2).blocks == (3, 7)
    sized = rule.sized(get_method("zero_tprune"), 12, 196, [150, 100])
    assert [(stage.block, stage.patches) for stage in sized] == [(3, 150), (9, 100), (11, 0)]
    # a quarter of 46, rounded to even, and of 50; rounds are only asked for where something is left to rank
    assert [dict(stage.options) for stage in sized] == [
        {"similar": 12, "iterations": 4}, {"similar": 12, "iterations": 4}, {}
    ]  # fmt: skip
    everything = default_rule(tiny, "zero_tprune", {}, blocks=[3], similar=1.0)
    assert everything.sized(get_method("zero_tprune"), 12, 196, [150])[0].options == {"similar": 46}
    assert rule.sized(get_method("evit"), 12, 196, [150, 100])[0].options == {}
