import re

import numpy as np
import pytest
from helpers import small_swin, small_vit
from hypothesis import given, settings
from hypothesis import strategies as st

from vitrim.calibration.units.cost import unit_cost
from vitrim.calibration.units.scores import UnitScores
from vitrim.calibration.units.select import check_reachable, global_values, narrow, ranks, threshold_values
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.slim import check_fit, parts_of

MODELS = {"vit": small_vit(), "swin": small_swin()}


def random_scores(parts, seed):
    draw = np.random.default_rng(seed)
    return UnitScores(
        tuple(draw.random(part.heads) for part in parts), tuple(draw.random(part.neurons) for part in parts)
    )


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(list(MODELS)),
    st.integers(0, 10**6),
    st.floats(0.45, 0.99),
    st.sampled_from(["macs", "parameters"]),
    st.sampled_from([8, 16]),
    st.sampled_from([(True, True), (True, False), (False, True)]),
)
def test_any_target_is_met_with_legal_widths(name, seed, share, quantity, multiple, kinds):
    model = MODELS[name]
    parts, cost = parts_of(model), unit_cost(model, quantity)
    values = random_scores(parts, seed)
    target = share * cost.dense
    try:
        widths = narrow(parts, values, cost, target, multiple=multiple, heads=kinds[0], neurons=kinds[1])
    except InputError:
        heads = [1] * len(parts) if kinds[0] else cost.heads
        assert cost.of(heads, [multiple] * len(parts) if kinds[1] else cost.neurons) > target
        return
    check_fit(parts, widths)
    found = cost.of(widths.heads, widths.neurons)
    assert found <= target
    for index, row in enumerate(widths.blocks):
        assert len(row.neurons) % multiple == 0 or len(row.neurons) == row.neurons_before
        assert kinds[0] or len(row.heads) == row.heads_before
        assert kinds[1] or len(row.neurons) == row.neurons_before
        for kept, value in ((row.heads, values.heads[index]), (row.neurons, values.neurons[index])):
            gone = np.setdiff1d(np.arange(len(value)), kept)
            assert not len(gone) or value[list(kept)].min() >= value[gone].max()  # the best stay
    if kinds[1]:  # no step of neurons more fits
        for index, row in enumerate(widths.blocks):
            step = min(multiple, row.neurons_before - len(row.neurons))
            assert not step or found + step * cost.neuron[index] > target


def test_one_threshold_for_all_layers():
    """The layer whose units score lower loses more of them."""
    model = small_vit()
    parts, cost = parts_of(model), unit_cost(model, "macs")
    scores = UnitScores(
        tuple(np.full(part.heads, 10.0) for part in parts),
        tuple(np.arange(part.neurons) + 1000.0 * (index == 0) for index, part in enumerate(parts)),
    )
    widths = narrow(parts, scores, cost, 0.8 * cost.dense, multiple=8, heads=False)
    assert len(widths.blocks[0].neurons) == parts[0].neurons
    assert len({len(row.neurons) for row in widths.blocks[1:]}) <= 2
    assert all(len(row.neurons) < parts[0].neurons for row in widths.blocks[1:])


def test_a_rate_is_the_share_that_goes_not_the_share_that_stays():
    """METHODS' trap 4: the k-th smallest value with k = (1 - r) n as the cut keeps r instead of 1 - r."""
    parts = parts_of(small_vit())
    scores = random_scores(parts, 0)
    for rate in (0.1, 0.25, 0.5, 0.75):
        rates = ([0.0] * len(parts), [rate] * len(parts))
        values = threshold_values(scores, rates)
        for score, value in zip(scores.neurons, values.neurons, strict=True):
            stays = value > 0
            assert stays.mean() == pytest.approx(1 - rate, abs=1 / len(value))
            assert score[stays].min() > score[~stays].max()


def test_ranks_are_places_in_a_layer():
    assert ranks(np.array([5.0, 1.0, 3.0, 2.0])).tolist() == [0.875, 0.125, 0.625, 0.375]


def test_losses_are_compared_by_cost_and_masks_as_they_are():
    model = small_vit()
    parts, cost = parts_of(model), unit_cost(model, "macs")
    masks = random_scores(parts, 1)
    assert global_values(masks, cost) is masks
    values = global_values(UnitScores(masks.heads, masks.neurons, losses=True), cost)
    assert values.heads[0][1] == masks.heads[0][1] / cost.head[0]
    assert values.neurons[2][3] == masks.neurons[2][3] / cost.neuron[2]


def test_an_unreachable_target_says_what_is_reachable():
    model = small_vit()
    parts, cost = parts_of(model), unit_cost(model, "macs")
    with pytest.raises(InputError, match="the narrowest model that may be made costs"):
        narrow(parts, random_scores(parts, 0), cost, 0.01 * cost.dense)
    least = cost.of([1] * len(parts), [16] * len(parts))
    check_reachable(cost, least, 16, True, True)
    with pytest.raises(InputError, match=re.escape(f"costs {least:.4g} of")):
        check_reachable(cost, least - 1, 16, True, True)
