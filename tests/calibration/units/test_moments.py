import numpy as np
import pytest
import torch
from helpers import random_widths, small_swin, small_vit, source_for

from vitrim.calibration.images.reading import read_all
from vitrim.calibration.units.moments import RIDGE, ridge, second_moments, with_bias
from vitrim.exporter.pruning.slim import slim
from vitrim.exporter.pruning.units import blocks_of


@pytest.mark.parametrize("make", [small_vit, small_swin])
def test_moments_are_sums_of_products_of_inputs_and_a_constant(make):
    model = make()
    source, seen, done = source_for(model, 5), [], []
    moments = second_moments(model, source, lambda *counts: done.append(counts), batch=2)
    assert done == [(2, 5), (4, 5), (5, 5)]
    block = blocks_of(model)[1]
    handles = [
        layer.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0].flatten(0, -2).double()))
        for layer in (block.attn.proj, block.mlp.fc2)
    ]
    with torch.inference_mode():
        model(torch.from_numpy(read_all(source)))
    for handle in handles:
        handle.remove()
    for inputs, moment in zip(seen, (moments.heads[1], moments.neurons[1]), strict=True):
        x = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
        np.testing.assert_allclose(moment, x.T @ x, rtol=1e-5, atol=1e-3)
    with torch.inference_mode():
        model(torch.zeros(1, *source.read(0).shape))
    assert len(seen) == 2  # the hooks are gone with the call


def test_moments_of_what_stays_are_those_of_the_sliced_model_until_it_differs():
    """In the first block the kept heads see what they saw before."""
    model = small_vit()
    source, widths = source_for(model, 4), random_widths(model, 3)
    whole, own = second_moments(model, source), second_moments(slim(model, widths), source)
    kept = whole.of_kept(model, widths)
    np.testing.assert_allclose(kept.heads[0], own.heads[0], rtol=1e-5, atol=1e-3)
    assert [len(moment) for moment in kept.neurons] == [len(row.neurons) + 1 for row in widths.blocks]
    assert [len(moment) for moment in kept.heads] == [16 * len(row.heads) + 1 for row in widths.blocks]


def test_a_layer_without_bias_has_no_constant():
    model = small_vit()
    model.blocks[0].mlp.fc2.bias = None
    moments = second_moments(model, source_for(model, 2))
    assert [len(moment) for moment in moments.neurons[:2]] == [192, 193]
    assert with_bias(model.blocks[0].mlp.fc2).shape == (48, 192)
    assert torch.equal(with_bias(model.blocks[1].mlp.fc2)[:, -1], model.blocks[1].mlp.fc2.bias.double())
    added = ridge(moments.neurons[1], 192)
    assert float(added[-1]) == 0
    assert float(added[0]) == pytest.approx(RIDGE * float(moments.neurons[1].diagonal()[:-1].mean()))
