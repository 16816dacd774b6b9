"""What heads and neurons cost: against sums by hand, and against the models that are made of the widths."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import SMALL, random_widths, small_swin, small_vit

from vitrim.calibration.units.cost import UnitCost, costs_of, count_macs, unit_cost
from vitrim.exporter.core.errors import UnsupportedError
from vitrim.exporter.pruning.slim import slim

TOKENS, WIDTH, HEADS, CLASSES, PATCH, DEPTH = 17, 48, 3, 7, 16, 4
HIDDEN, HEAD = 4 * WIDTH, WIDTH // HEADS


def test_the_products_of_a_vit_are_all_counted() -> None:
    assert (SMALL["embed_dim"], SMALL["num_heads"], SMALL["depth"]) == (WIDTH, HEADS, DEPTH)
    patches = 16 * (3 * PATCH**2) * WIDTH
    attention = TOKENS * WIDTH * 4 * WIDTH + 2 * TOKENS**2 * WIDTH
    mlp = 2 * TOKENS * WIDTH * HIDDEN
    assert count_macs(small_vit()) == patches + DEPTH * (attention + mlp) + WIDTH * CLASSES


def test_counting_leaves_the_model_where_it_is() -> None:
    model = small_vit()
    count_macs(model)
    assert {str(parameter.device) for parameter in model.parameters()} == {"cpu"}


def test_prices_of_a_vit_by_hand() -> None:
    macs, parameters = unit_cost(small_vit(), "macs"), unit_cost(small_vit(), "parameters")
    assert macs.heads == parameters.heads == (HEADS,) * DEPTH
    assert macs.neurons == (HIDDEN,) * DEPTH
    assert macs.head == (TOKENS * WIDTH * 4 * HEAD + 2 * TOKENS**2 * HEAD,) * DEPTH
    assert macs.neuron == (2 * TOKENS * WIDTH,) * DEPTH
    assert parameters.head == (4 * WIDTH * HEAD + 3 * HEAD,) * DEPTH  # the projection's bias stays
    assert parameters.neuron == (2 * WIDTH + 1,) * DEPTH
    assert macs.dense == count_macs(small_vit())
    assert parameters.dense == sum(parameter.numel() for parameter in small_vit().parameters())


def test_a_cost_is_linear_in_the_widths() -> None:
    cost = UnitCost(fixed=5, head=(10, 100), neuron=(1, 2), heads=(2, 3), neurons=(4, 4))
    assert cost.dense == 5 + 20 + 300 + 4 + 8
    assert cost.of((1, 0.5), (0, 3)) == 5 + 10 + 50 + 6
    with pytest.raises(ValueError, match="shorter"):
        cost.of((1,), (0, 3))


@pytest.mark.parametrize("make", [small_vit, small_swin])
@pytest.mark.parametrize("seed", range(3))
def test_costs_are_those_of_the_model_that_is_made(make: Any, seed: int) -> None:
    model = make()
    widths = random_widths(model, seed)
    narrow = slim(model, widths)
    found = costs_of(model, widths)
    assert found["parameters"] == tuple(sum(p.numel() for p in one.parameters()) for one in (model, narrow))
    assert found["gmacs"] == pytest.approx((count_macs(model) / 1e9, count_macs(narrow) / 1e9), rel=1e-12)
    assert found["gmacs"][1] < found["gmacs"][0]


def test_what_cannot_be_slimmed_has_no_prices() -> None:
    import timm

    with pytest.raises(UnsupportedError):
        unit_cost(timm.create_model("resnet18"), "macs")
