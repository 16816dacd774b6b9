import numpy as np
import pytest
import torch
from helpers import small_swin, small_vit, source_for
from neuron_families import small_family

from vitrim.calibration.images.in_memory import ArrayImages
from vitrim.calibration.units.cost import unit_cost
from vitrim.calibration.units.masks import learn_masks
from vitrim.calibration.units.moments import second_moments
from vitrim.calibration.units.rates import learn_rates
from vitrim.calibration.units.redundancy import after_repair
from vitrim.calibration.units.repair import repair
from vitrim.calibration.units.scores import UnitScores, taylor, unit_gates
from vitrim.calibration.units.select import narrow, threshold_values
from vitrim.exporter.pruning.gates import Gates, gated
from vitrim.exporter.pruning.slim import parts_of, slim
from vitrim.exporter.pruning.units import blocks_of


@pytest.mark.parametrize("make", [small_vit, small_swin])
def test_taylor_is_the_squared_slope_of_every_images_loss(make):
    """Against central differences in float64: the loss of each image, each unit's factor moved alone."""
    model = make()
    source = source_for(model, 3)
    scores = taylor(model, source, batch=2)
    assert scores.losses
    double = make().double()
    parts, blocks = parts_of(double), blocks_of(double)
    labels = torch.as_tensor(np.asarray(source.labels))

    def losses(kind, block, unit, value):
        whole = unit_gates(parts)
        gates = Gates([g.double() for g in whole.heads], [g.double() for g in whole.neurons])
        getattr(gates, kind)[block][unit] = value
        images = torch.from_numpy(np.stack([source.read(index) for index in range(3)])).double()
        with torch.inference_mode(), gated(blocks, gates):
            return torch.nn.functional.cross_entropy(double(images), labels, reduction="none")

    for kind in ("heads", "neurons"):
        for block in range(len(parts)):
            for unit in (0, 1):
                slope = (losses(kind, block, unit, 1 + 1e-4) - losses(kind, block, unit, 1 - 1e-4)) / 2e-4
                expected = float(slope.square().mean())
                assert getattr(scores, kind)[block][unit] == pytest.approx(expected, rel=1e-3, abs=1e-12)


def test_classes_count_their_own_images_only():
    model = small_vit()
    source = source_for(model, 8)
    wanted = int(source.labels[0])
    chosen = [index for index, label in enumerate(source.labels) if label == wanted]
    part = ArrayImages(
        np.stack([source.read(index) for index in chosen]), np.asarray([wanted] * len(chosen)), source.preprocess, "x"
    )
    few, alone = taylor(model, source, classes=[wanted]), taylor(model, part)
    for a, b in zip(few.neurons, alone.neurons, strict=True):
        np.testing.assert_allclose(a * len(source), b * len(chosen), rtol=1e-4, atol=1e-12)


def test_without_labels_classes_are_drawn_from_the_answers():
    model = small_vit()
    with torch.no_grad():
        model.head.weight.mul_(0.1)  # answers that leave something to chance
    source = source_for(model, 4, labelled=False)
    one, same, other = taylor(model, source), taylor(model, source), taylor(model, source, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(one.neurons, same.neurons, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one.neurons, other.neurons, strict=True))
    assert all((scores >= 0).all() and scores.max() > 0 for scores in (*one.heads, *one.neurons))


def test_a_layers_mean_is_one():
    scores = UnitScores((np.array([1.0, 3.0]),), (np.array([0.0, 0.0, 6.0]),)).by_layer_mean()
    assert scores.heads[0].tolist() == [0.5, 1.5]
    assert scores.neurons[0].tolist() == [0.0, 0.0, 3.0]


@pytest.mark.parametrize("family", ["swin v2", "pit"])
def test_what_scores_least_is_missed_least_also_behind_a_norm(family):
    """Swin V2 normalizes what its MLPs give, and none of its heads can leave; PiT's can."""
    model = small_family(family)
    source = source_for(model, 4, labelled=False)
    moments = second_moments(model, source)
    scores = after_repair(model, taylor(model, source), moments)
    cost = unit_cost(model, "macs")
    assert all(len(heads) == whole for heads, whole in zip(scores.heads, cost.heads, strict=True))
    missed = {}
    for name, sign in (("least", 1.0), ("most", -1.0)):
        turned = UnitScores(tuple(sign * one for one in scores.heads), tuple(sign * one for one in scores.neurons))
        widths = narrow(parts_of(model), turned, cost, 0.9 * cost.dense, multiple=8)
        slimmed = slim(model, widths)
        repair(model, slimmed, widths, moments)
        images = torch.from_numpy(np.stack([source.read(index) for index in range(4)]))
        with torch.inference_mode():
            missed[name] = float((slimmed(images) - model(images)).square().mean())
    assert missed["least"] < 0.5 * missed["most"]


def test_xpruner_learns_masks_and_rates_where_heads_cannot_leave():
    model = small_family("swin v2")
    source, cost = source_for(model, 4), unit_cost(model, "macs")
    masks = learn_masks(model, source, model.num_classes, epochs=1)
    scores = masks.scores()
    assert {mask.shape for mask in masks.heads} == {(7, 0)}
    assert all(np.ptp(one) > 0 for one in scores.neurons)
    rates = learn_rates(model, scores, cost, 0.8 * cost.dense, source, epochs=1)
    assert set(rates.heads) == {0.0}
    values = threshold_values(scores, (rates.heads, rates.neurons))
    widths = narrow(parts_of(model), values, cost, 0.8 * cost.dense, multiple=8)
    assert cost.of(widths.heads, widths.neurons) <= 0.8 * cost.dense
