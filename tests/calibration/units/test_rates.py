import numpy as np
import pytest
import torch
from helpers import small_vit, source_for

from vitrim.calibration.units.cost import unit_cost
from vitrim.calibration.units.rates import ascended, learn_rates, soft_gate, task_loss
from vitrim.calibration.units.scores import taylor
from vitrim.calibration.units.select import narrow as cut
from vitrim.calibration.units.select import ranks, threshold_values
from vitrim.exporter.pruning.gates import Gates, gated
from vitrim.exporter.pruning.slim import parts_of
from vitrim.exporter.pruning.units import blocks_of


def learned(share, epochs=40, **settings):
    model = small_vit()
    source = source_for(model, 16)
    cost, scores = unit_cost(model, "macs"), taylor(model, source)
    rates = learn_rates(model, scores, cost, share * cost.dense, source, epochs=epochs, batch=8, **settings)
    return model, cost, scores, rates


@pytest.mark.slow
def test_the_constraint_is_reached_and_rates_do_not_collapse():
    """METHODS' trap 3: with the multiplier going down instead of up, all rates end at 0."""
    _, _, _, rates = learned(0.7)
    assert rates.cost[0] > 0.85
    assert abs(rates.cost[-1] - 0.7) < 0.02
    assert max(rates.multiplier) > 0.1
    assert np.mean(rates.heads + rates.neurons) > 0.2


def test_the_multiplier_goes_up_while_the_model_costs_too_much():
    assert ascended(0.5, 0.1, 2.0) == 0.7
    assert ascended(0.5, -0.1, 2.0) == 0.3
    assert ascended(0.1, -0.2, 2.0) == 0.0  # the budget is an upper bound
    _, _, _, rates = learned(0.7, epochs=3)
    assert rates.multiplier[0] > 0
    assert list(rates.multiplier) == sorted(rates.multiplier)  # still too expensive


def test_the_tasks_loss_reaches_every_rate():
    """METHODS' trap 5: a tanh that is computed and not used, or a rate turned into a count, gets no gradient."""
    model = small_vit()
    parts, source = parts_of(model), source_for(model, 4)
    scores = taylor(model, source)
    rates = [torch.full((len(parts),), 0.3, requires_grad=True) for _ in range(2)]

    def soft(scores, rates):
        places = [torch.from_numpy(ranks(score)).float() for score in scores]
        return [soft_gate(place, rate, 10.0) for place, rate in zip(places, rates, strict=True)]

    gates = Gates(soft(scores.heads, rates[0]), soft(scores.neurons, rates[1]))
    with gated(blocks_of(model), gates):
        logits = model(torch.from_numpy(np.stack([source.read(index) for index in range(4)])))
    loss = task_loss(logits, None, torch.from_numpy(source.labels).long())
    for gradient in torch.autograd.grad(loss, rates):
        assert (gradient != 0).all()


def test_a_soft_gate_is_half_open_at_its_rate():
    gate = soft_gate(torch.tensor([0.1, 0.3, 0.9]), torch.tensor(0.3), 30.0)
    assert gate[1] == 0.5
    assert gate[0] < 1e-4
    assert gate[2] > 1 - 1e-4


@pytest.mark.slow
def test_hard_widths_meet_the_target_within_a_percent():
    model, cost, scores, rates = learned(0.7, epochs=10)
    widths = cut(parts_of(model), threshold_values(scores, (rates.heads, rates.neurons)), cost, 0.7 * cost.dense)
    share = cost.of(widths.heads, widths.neurons) / cost.dense
    smallest = 16 * max(cost.neuron) / cost.dense
    assert 0.7 - max(0.01, smallest) <= share <= 0.7


def test_kinds_that_stay_have_no_rate_and_no_labels_mean_the_dense_answers():
    model = small_vit()
    source = source_for(model, 4, labelled=False)
    cost, scores = unit_cost(model, "macs"), taylor(model, source)
    rates = learn_rates(model, scores, cost, 0.8 * cost.dense, source, epochs=1, heads=False)
    assert rates.heads == (0.0,) * 4
    assert all(rate > 0 for rate in rates.neurons)
    images = torch.from_numpy(np.stack([source.read(index) for index in range(4)]))
    with torch.inference_mode():
        answers = model(images)
        assert float(task_loss(answers, answers, None)) == 0.0
        assert float(task_loss(answers * 0.5, answers, None)) > 0.0
