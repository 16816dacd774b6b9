"""Frugal merging: its first form against loops over tokens, and what its parameters choose; see test_absorption."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import make_evidence
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_merging import SIZES, pairs_of, plain_matching, plain_significance

from vitrim.calibration.tokens.budgets import from_preset
from vitrim.calibration.tokens.cost import dense_plan, model_macs, total_macs
from vitrim.calibration.tokens.presets import get_preset
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.budget import parse_budget
from vitrim.exporter.pruning.load import create_model
from vitrim.exporter.pruning.methods import get_method
from vitrim.exporter.pruning.methods.absorption import absorb
from vitrim.exporter.pruning.methods.matching import largest_reduction, match
from vitrim.exporter.pruning.methods.options import check_budget, parameters_of
from vitrim.exporter.pruning.methods.ppt import significance
from vitrim.exporter.pruning.methods.selection import Weighing
from vitrim.exporter.pruning.shape import describe

frugal = get_method("frugal")
FIRST, SECOND = frugal.before["vitrim-budget/1"], frugal.before["vitrim-budget/2"]


@settings(max_examples=30, deadline=None)
@given(shape=SIZES.filter(lambda s: s["prefix"] > 0), exponent=st.sampled_from([0.0, 0.75, 2.0]), data=st.data())
def test_frugal_merging_equals_the_plain_implementation(
    shape: dict[str, int], exponent: float, data: st.DataObject
) -> None:
    evidence = make_evidence(**shape)
    tokens, prefix = shape["patches"] + shape["prefix"], shape["prefix"]
    reduction = data.draw(st.integers(1, largest_reduction(tokens, prefix)))
    parameters = frugal.Parameters(exponent=exponent, **FIRST)
    selection = frugal.select(evidence, tokens - reduction, frugal.StageOptions(), parameters)
    assert selection.kept is not None
    assert evidence.attention is not None
    for image in range(2):
        shares = plain_significance(evidence.attention[image].numpy(), evidence.values[image].numpy(), prefix)
        worth = {patch: share**exponent for patch, share in shares.items()}
        stays, pairs = plain_matching(evidence.keys[image].numpy(), prefix, reduction, worth)
        assert selection.kept[image].tolist() == stays
        assert pairs_of(selection, image) == pairs


def test_without_an_exponent_it_is_tome_s_matching() -> None:
    evidence, tome = make_evidence(7, 3, 14, 1), get_method("tome")
    without = frugal.select(evidence, 10, frugal.StageOptions(), frugal.Parameters(exponent=0, **FIRST))
    plain = tome.select(evidence, 10, tome.StageOptions(), tome.Parameters())
    weighed = frugal.select(evidence, 10, frugal.StageOptions(), frugal.Parameters(exponent=4, **FIRST))
    assert without.kept is not None
    assert plain.kept is not None
    assert weighed.kept is not None
    assert torch.equal(without.kept, plain.kept)
    assert [pairs_of(without, image) for image in range(2)] == [pairs_of(plain, image) for image in range(2)]
    assert not torch.equal(weighed.kept, plain.kept)


def test_a_patch_that_matters_stays_though_it_is_alike() -> None:
    """Patches 0 and 1 are twins, 2 and 3 nearly so; the class token looks at 0 alone."""
    keys = torch.tensor([[0.0, 0.0], [1.0, 0.01], [1.0, 0.0], [0.0, 1.0], [0.2, 1.0]], dtype=torch.float64)
    row = torch.tensor([0.1, 0.02, 0.84, 0.02, 0.02], dtype=torch.float64)  # patches are tokens 1 to 4; 2 is of group A
    evidence = type(make_evidence(0, 1, 4, 1))(
        row.expand(1, 1, 5, 5), keys.expand(1, 1, 5, 2), torch.ones(1, 1, 5, 2, dtype=torch.float64), 1, True
    )

    def merged(exponent: float) -> list[tuple[int, int]]:
        return pairs_of(
            frugal.select(evidence, 4, frugal.StageOptions(), frugal.Parameters(exponent=exponent, **FIRST)), 0
        )

    assert merged(0) == [(2, 1)]
    assert merged(4) == [(4, 3)]


def test_parameters_choose_pairs_features_and_weights() -> None:
    evidence = make_evidence(3, 2, 20, 1)
    drawn = torch.randn(2, 21, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    evidence = replace(evidence, tokens=drawn)
    keys, tokens = evidence.keys.mean(1), evidence.stream
    weighing = Weighing(evidence.significance, 0.5, False, 0.3)

    def selected(**parameters: Any) -> Any:
        return frugal.select(evidence, 15, frugal.StageOptions(), frugal.Parameters(**parameters))

    expected = {
        ("any", "tokens"): absorb(evidence, 15, tokens, 0.75, "as_long", weighing),
        ("any", "keys"): absorb(evidence, 15, keys, 0.75, "as_long", weighing),
        ("halves", "tokens"): match(evidence, 15, "as_long", 0.75, tokens, weighing),
        ("halves", "keys"): match(evidence, 15, "as_long", 0.75, keys, weighing),
    }
    for (pairs, features), selection in expected.items():
        found = selected(pairs=pairs, features=features, weight=0.5)
        assert torch.equal(found.kept, selection.kept)
        assert torch.equal(found.merge.target, selection.merge.target)
        assert found.merge.rule == selection.merge.rule == "as_long"
        torch.testing.assert_close(found.merge.weighing.worth, evidence.significance)
        assert found.merge.weighing[1:] == (0.5, False, 0.3)
    default = selected()
    assert torch.equal(default.kept, expected["any", "tokens"].kept)
    assert default.merge.weighing[1:] == (1.0, False, 0.3)
    averaged = frugal.weighing(replace(evidence, averaged=True), frugal.Parameters())
    assert averaged[1:] == (1.0, False, 0.0)  # sizes have to be numbers of patches there
    plain = selected(weight=0, sized=True, share=0, length="mean").merge
    assert plain.weighing.is_plain
    assert plain.rule == "mean"
    assert len({(*each.kept[0].tolist(), *each.merge.target[0].tolist()) for each in expected.values()}) == 4


def test_budgets_of_older_formats_mean_the_older_forms() -> None:
    rows = [{"block": 0, "before": 17, "after": 10}]
    data = {"method": "frugal", "prefix_tokens": 1, "blocks": rows}
    old, older, new = (
        parameters_of(parse_budget(data | {"format": f"vitrim-budget/{number}"})) for number in (1, 2, 3)
    )
    assert old.model_dump() == frugal.Parameters().model_dump() | FIRST
    assert older.model_dump() == frugal.Parameters().model_dump() | SECOND
    assert new == frugal.Parameters()
    assert parameters_of(parse_budget(data | {"parameters": {"share": 0.5}})).model_dump()["length"] == "kept"
    given = data | {"format": "vitrim-budget/1", "parameters": {"weight": 2.0}}
    assert parameters_of(parse_budget(given)).model_dump() == old.model_dump() | {"weight": 2.0}
    assert parse_budget(data).format == "vitrim-budget/3"
    with pytest.raises(InputError, match="removes 9 of 17 tokens, but one stage of frugal removes at most 8"):
        check_budget(frugal, parse_budget(data | {"format": "vitrim-budget/1", "blocks": [rows[0] | {"after": 8}]}))


def test_one_patch_stays_or_one_matching_fits() -> None:
    assert frugal.largest_removal(17, 1, frugal.Parameters()) == 15
    assert frugal.largest_removal(17, 1, frugal.Parameters(**FIRST)) == 8


@pytest.mark.parametrize(("preset", "stages"), [("frugal-3", 3), ("frugal-4", 4), ("frugal-8", 8)])
def test_presets_cost_about_two_thirds(preset: str, stages: int) -> None:
    shape = describe(create_model("deit_tiny_patch16_224", random=0))
    budget = from_preset(shape, get_preset(preset))
    assert len(budget.stages) == stages
    assert total_macs(shape, budget) / model_macs(shape, dense_plan(shape)) == pytest.approx(0.65, abs=0.008)


def test_stages_stand_after_a_quarter_and_every_sixth_of_the_depth() -> None:
    assert frugal.placement.blocks(12) == (3, 5, 7, 9)
    assert frugal.placement.sized_by == "rates"
    assert frugal.proportional(frugal.Parameters())
    assert not frugal.proportional(frugal.Parameters(proportional=False))
    evidence = make_evidence(1, 2, 6, 1)
    assert torch.equal(frugal.score(evidence, frugal.Parameters()).importance, significance(evidence))
