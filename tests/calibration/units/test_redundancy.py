import numpy as np
import pytest
import torch
from helpers import small_swin, small_vit, source_for
from torch import nn

from vitrim.calibration.units import redundancy
from vitrim.calibration.units.moments import second_moments
from vitrim.calibration.units.redundancy import after_repair
from vitrim.calibration.units.scores import taylor


def unsaid(layer: nn.Linear, inputs: np.ndarray, unit: np.ndarray, others: np.ndarray) -> float:
    """The share of a unit's part in the output that least squares on other units and a constant leave."""
    part = inputs[:, unit] @ layer.weight.detach().double().numpy()[:, unit].T
    known = np.hstack([inputs[:, others], np.ones((len(inputs), 1))])
    left = part - known @ np.linalg.lstsq(known, part, rcond=None)[0]
    return float(np.square(left).sum() / np.square(part).sum())


def by_hand(layer: nn.Linear, inputs: np.ndarray, scores: np.ndarray, size: int) -> np.ndarray:
    """Units leave one by one, the least lost first; by plain least squares on the inputs every time."""
    alive, found, floor = list(range(len(scores))), np.empty(len(scores)), 0.0
    channels = np.arange(len(scores) * size).reshape(-1, size)
    while alive:
        losses = {
            unit: scores[unit]
            * unsaid(layer, inputs, channels[unit], channels[[one for one in alive if one != unit]].flatten())
            for unit in alive
        }
        goes = min(losses, key=losses.__getitem__)
        floor = found[goes] = max(floor, losses[goes])
        alive.remove(goes)
    return found


@pytest.mark.parametrize("candidates", [1, 4, 64])
@pytest.mark.parametrize(("units", "size"), [(9, 1), (3, 4)])
def test_units_leave_as_least_squares_says(monkeypatch, units, size, candidates):
    """Heads and neurons alike, against numpy's least squares on the inputs themselves, however many are looked at."""
    monkeypatch.setattr(redundancy, "CANDIDATES", candidates)
    monkeypatch.setattr("vitrim.calibration.units.moments.RIDGE", 0.0)
    draw = np.random.default_rng(units)
    inputs = draw.standard_normal((60, units * size)) @ draw.standard_normal((units * size, units * size)) + 1
    layer = nn.Linear(units * size, 5)
    one = torch.from_numpy(np.hstack([inputs, np.ones((60, 1))]))
    scores = draw.random(units)
    monkeypatch.setattr(redundancy, "LEAST", 0.0)
    with torch.inference_mode():
        found = redundancy._in_turn(scores, layer, one.T @ one)
    np.testing.assert_allclose(found, by_hand(layer, inputs, scores, size), rtol=1e-6)
    assert (found <= np.maximum.accumulate(np.sort(scores))[-1]).all()


@pytest.mark.parametrize("make", [small_vit, small_swin])
def test_of_two_units_that_say_the_same_one_goes_for_nothing(make):
    model = make()
    block = model.blocks[2] if make is small_vit else model.layers[1].blocks[0]
    with torch.no_grad():
        block.mlp.fc1.weight[5] = block.mlp.fc1.weight[7]
        block.mlp.fc1.bias[5] = block.mlp.fc1.bias[7]
    index = 2
    source = source_for(model, 24)
    scores = taylor(model, source)
    found = after_repair(model, scores, second_moments(model, source))
    assert found.losses
    pair, before = found.neurons[index][[5, 7]], scores.neurons[index][[5, 7]]
    assert pair.min() < 0.01 * before.min()
    for kind in ("heads", "neurons"):
        for ours, theirs in zip(getattr(found, kind), getattr(scores, kind), strict=True):
            assert ours.shape == theirs.shape
            assert (ours >= 0).all()


def test_a_unit_that_says_nearly_all_does_not_go_first_whatever_its_slope_is():
    """One neuron that is large and alone, its slope 0 as after a normalization."""
    draw = np.random.default_rng(0)
    inputs = np.hstack([draw.standard_normal((40, 6)), np.ones((40, 1))])
    inputs[:, 2] *= 100
    one, layer = torch.from_numpy(inputs), nn.Linear(6, 4)
    scores = np.array([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    with torch.inference_mode():
        found = redundancy._in_turn(scores, layer, one.T @ one)
    assert found.argmax() == 2
    assert found[2] > 10 * np.delete(found, 2).max()


def test_a_unit_that_says_nothing_costs_nothing():
    model = small_vit()
    with torch.no_grad():
        model.blocks[1].mlp.fc1.weight[3] = 0
        model.blocks[1].mlp.fc1.bias[3] = 0  # gelu(0) = 0
    source = source_for(model, 8)
    found = after_repair(model, taylor(model, source), second_moments(model, source))
    assert found.neurons[1][3] < 1e-9 * found.neurons[1].max()
    assert np.isfinite(found.neurons[1]).all()
