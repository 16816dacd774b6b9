import numpy as np
import pytest
import torch
from helpers import small_swin, small_vit, source_for
from torch.nn import functional as F

from vitrim.calibration.units.masks import ClassMasks, learn_masks, penalty
from vitrim.exporter.core.errors import InputError
from vitrim.exporter.pruning.slim import parts_of


def plain_masks(model, source, epochs, lr, sparse, smooth, batch, seed):
    """X-Pruner's phase 1 with loops: every image alone, its class's masks multiplied in by hooks of its own."""
    parts = parts_of(model)
    from vitrim.exporter.pruning.units import blocks_of

    sizes = [size for part in parts for size in (part.heads, part.neurons)]
    masks = [torch.ones(model.num_classes, size, requires_grad=True) for size in sizes]
    speed = [torch.zeros_like(mask) for mask in masks]
    draw = np.random.default_rng(seed)
    for _ in range(epochs):
        order = draw.permutation(len(source))
        for indices in np.array_split(order, -(-len(source) // batch)):
            total = 0.0
            for index in indices:
                label = int(source.labels[index])
                handles = []
                for number, block in enumerate(blocks_of(model)):
                    head_dim = parts[number].head_dim
                    heads = masks[2 * number][label].repeat_interleave(head_dim)
                    neurons = masks[2 * number + 1][label]
                    handles.append(block.attn.proj.register_forward_pre_hook(lambda m, x, g=heads: (x[0] * g,)))
                    handles.append(block.mlp.fc2.register_forward_pre_hook(lambda m, x, g=neurons: (x[0] * g,)))
                logits = model(torch.from_numpy(source.read(int(index)))[None])
                for handle in handles:
                    handle.remove()
                total = total + F.cross_entropy(logits, torch.tensor([label])) / len(indices)
            for mask in masks:
                classes, units = mask.shape
                for row in range(classes):
                    total = total + sparse / classes * sum(mask[row, unit] ** 2 for unit in range(units))
                    for unit in range(1, units - 1):
                        bend = mask[row, unit - 1] - 2 * mask[row, unit] + mask[row, unit + 1]
                        total = total + smooth / classes * bend.abs()
            gradients = torch.autograd.grad(total, masks)
            with torch.no_grad():
                for mask, velocity, gradient in zip(masks, speed, gradients, strict=True):
                    velocity.mul_(0.9).add_(gradient)
                    mask -= lr * velocity
    return [mask.detach() for mask in masks]


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda: small_vit(depth=2, mlp_ratio=0.5), small_swin])
def test_masks_are_those_of_a_plain_implementation(make):
    model = make()
    source = source_for(model, 5)
    settings = {"epochs": 1 if model.__class__.__name__ == "SwinTransformer" else 2, "lr": 0.5, "batch": 3, "seed": 4}
    found = learn_masks(model, source, model.num_classes, sparse=0.01, smooth=0.02, **settings)
    expected = plain_masks(model, source, sparse=0.01, smooth=0.02, **settings)
    for mask, plain in zip(
        [part for pair in zip(found.heads, found.neurons, strict=True) for part in pair], expected, strict=True
    ):
        torch.testing.assert_close(mask, plain, atol=1e-5, rtol=1e-5)


def test_only_the_masks_of_a_class_feel_its_images():
    model = small_vit()
    source = source_for(model, 4)
    masks = learn_masks(model, source, model.num_classes, epochs=1, sparse=0.0, smooth=0.0)
    seen = set(source.labels.tolist())
    for mask in (*masks.heads, *masks.neurons):
        for label in range(model.num_classes):
            assert bool((mask[label] != 1).any()) == (label in seen)


def test_the_penalty_in_numbers():
    mask = torch.tensor([[1.0, 2.0, 4.0, 4.0], [0.0, 0.0, 0.0, 3.0]])
    # squares: 37 and 9; second differences: |1| + |-2| and 0 + 3; means over the two classes
    assert float(penalty([mask], 0.1, 0.0)) == pytest.approx(0.1 * 23)
    assert float(penalty([mask], 0.0, 0.5)) == pytest.approx(0.5 * 3)
    assert float(penalty([mask[:, :2]], 0.0, 0.5)) == 0.0  # two units have no second difference


def test_scores_are_absolute_sums_over_their_layers_mean():
    masks = ClassMasks(
        (torch.tensor([[1.0, -3.0], [2.0, 0.0]]),), (torch.tensor([[1.0, 1.0, 4.0], [1.0, 1.0, 4.0]]),), ()
    )
    scores = masks.scores()
    assert scores.heads[0].tolist() == [1.0, 1.0]
    assert scores.neurons[0].tolist() == [0.5, 0.5, 2.0]
    assert masks.scores([0]).heads[0].tolist() == [0.5, 1.5]
    assert not scores.losses


def test_labels_are_needed():
    with pytest.raises(InputError, match="needs labelled images"):
        learn_masks(small_vit(), source_for(small_vit(), 2, labelled=False), 7)
