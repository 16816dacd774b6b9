import numpy as np
import pytest
import torch
from helpers import random_widths, small_swin, small_vit, source_for

from vitrim.calibration.images.reading import read_all
from vitrim.calibration.units.moments import RIDGE, second_moments
from vitrim.calibration.units.repair import repair
from vitrim.exporter.pruning.slim import parts_of, slim
from vitrim.exporter.pruning.units import blocks_of
from vitrim.exporter.pruning.widths import Widths


def test_what_other_units_say_is_not_lost():
    """A neuron and a head that copy others can go: the fitted weights of the others say it all."""
    model = small_vit()
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.fc1.weight[5] = block.mlp.fc1.weight[7]
            block.mlp.fc1.bias[5] = block.mlp.fc1.bias[7]
            for third in range(3):
                rows = slice(third * 48, third * 48 + 16)
                block.attn.qkv.weight[rows] = block.attn.qkv.weight[third * 48 + 32 : third * 48 + 48]
                block.attn.qkv.bias[rows] = block.attn.qkv.bias[third * 48 + 32 : third * 48 + 48]
    rows = [
        {
            "block": part.path,
            "heads_before": 3,
            "heads": [1, 2],
            "neurons_before": part.neurons,
            "neurons": [neuron for neuron in range(part.neurons) if neuron != 5],
        }
        for part in parts_of(model)
    ]
    widths, source = Widths.model_validate({"blocks": rows}), source_for(model, 24)
    narrow = slim(model, widths)
    images = torch.from_numpy(read_all(source_for(model, 8, seed=9)))
    with torch.inference_mode():
        dense, sliced = model(images), narrow(images).clone()
        repair(model, narrow, widths, second_moments(model, source))
        error, before = (narrow(images) - dense).abs().max(), (sliced - dense).abs().max()
    assert before > 0.5
    assert error < 0.1 * before


@pytest.mark.parametrize("make", [small_vit, small_swin])
def test_the_fit_is_the_ridge_regression(make):
    """The first fc2 against numpy's least squares on stacked equations."""
    model = make()
    widths, source = random_widths(model, 4), source_for(model, 8)
    narrow = slim(model, widths)
    repair(model, narrow, widths, second_moments(model, source))
    seen = []
    block, row = blocks_of(model)[0], widths.blocks[0]
    handle = block.mlp.fc2.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].flatten(0, -2)))
    with torch.inference_mode():
        model(torch.from_numpy(read_all(source)))
    handle.remove()
    x = seen[0].double().numpy()
    whole, bias = block.mlp.fc2.weight.double().numpy(), block.mlp.fc2.bias.double().numpy()
    kept = x[:, list(row.neurons)]
    ridge = np.sqrt(RIDGE * np.square(kept).sum(0).mean())
    left = np.vstack([np.hstack([kept, np.ones((len(x), 1))]), np.eye(len(row.neurons), len(row.neurons) + 1) * ridge])
    right = np.vstack([x @ whole.T + bias, whole[:, list(row.neurons)].T * ridge])
    expected = np.linalg.lstsq(left, right, rcond=None)[0]
    layer = blocks_of(narrow)[0].mlp.fc2
    np.testing.assert_allclose(layer.weight.numpy(), expected[:-1].T, atol=1e-3)
    np.testing.assert_allclose(layer.bias.numpy(), expected[-1], atol=1e-3)


def test_whole_layers_are_left_alone():
    model = small_vit()
    widths = random_widths(model, 0)
    rows = [row.model_copy(update={"heads": (0, 1, 2)}) for row in widths.blocks]
    widths = widths.model_copy(update={"blocks": tuple(rows)})
    narrow = slim(model, widths)
    repair(model, narrow, widths, second_moments(model, source_for(model, 4)))
    for whole, part in zip(model.blocks, narrow.blocks, strict=True):
        assert torch.equal(whole.attn.proj.weight, part.attn.proj.weight)
        assert not part.mlp.fc2.weight.requires_grad
