"""Token dropping as a paper would run it: one image at a time, rows cut out with a boolean mask.

An independent forward that the static form is held against: same decisions, timm's own (fused) attention, no gather.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .budget import Budget
from .pruned import embed


@torch.inference_mode()
def drop_tokens(model: Any, budget: Budget, image: Tensor, kept: Mapping[int, Tensor]) -> Tensor:
    """Logits of images whose tokens are dropped under given decisions.

    Args:
        model: the dense timm model.
        budget: says where in a block tokens go.
        image: [n, channels, height, width].
        kept: by block, [n, tokens after it] original token ids.

    Returns:
        [n, classes].
    """
    rows = []
    for index in range(len(image)):
        x = embed(model, image[index : index + 1])
        ids = torch.arange(x.shape[1])
        for number, block in enumerate(model.blocks):
            if number not in kept:
                x = block(x)
                continue
            mask = torch.isin(ids, kept[number][index])
            ids = ids[mask]
            if budget.place == "after_block":
                x = block(x)[:, mask]
            else:
                x = (x + block.ls1(block.attn(block.norm1(x))))[:, mask]
                x = x + block.ls2(block.mlp(block.norm2(x)))
        rows.append(model.forward_head(model.norm(x)))
    return torch.cat(rows)
