"""Token reduction as a paper would run it: one image at a time, rows cut out with a mask, merged in a loop.

An independent forward that the static form is held against: same decisions, timm's own (fused) attention, no gather, no
one-hot product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from torch import Tensor
from torch.nn import functional as F

from ..core.layout import PACKED
from .block import embed, follow, look, places_of
from .budget import Budget
from .methods import get_method
from .methods.base import BY_SIZE, Evidence, Weighing
from .methods.options import parameters_of, parse_stage
from .work import rows_read


@torch.inference_mode()
def drop_tokens(
    model: Any, budget: Budget, image: Tensor, kept: Mapping[int, Tensor], merged: Mapping[int, Tensor] | None = None
) -> Tensor:
    """Logits of images whose tokens are dropped and merged under given decisions.

    Args:
        model: the dense timm model.
        budget: says where in a block tokens go.
        image: [n, channels, height, width].
        kept: by block, [n, tokens after it] token ids, see `vitrim.exporter.pruning.vit.Trace`.
        merged: by block, [n, merged] packed pairs of ids.

    Returns:
        [n, classes].
    """
    rows = [
        _one(
            model,
            budget,
            image[index : index + 1],
            {block: ids[index].tolist() for block, ids in kept.items()},
            {block: pairs[index].tolist() for block, pairs in (merged or {}).items()},
        )
        for index in range(len(image))
    ]
    return torch.cat(rows)


def _one(
    model: Any, budget: Budget, image: Tensor, kept: Mapping[int, list[int]], merged: Mapping[int, list[int]]
) -> Tensor:
    method = get_method(budget.method)
    parameters = parameters_of(budget)
    proportional = method.proportional(parameters)
    x = embed(model, image)
    whole = x.shape[1]
    ids = list(range(whole))
    sizes = [1.0] * whole
    for number, block in enumerate(model.blocks):
        normed = block.norm1(x)
        factors = torch.tensor(sizes) if proportional and set(sizes) != {1.0} else None
        first, second = _branches(block)
        weighing = _weighing(model, budget, number, normed, ids, factors) if merged.get(number) else BY_SIZE
        x = x + first * _attention(model, number, normed, ids, factors)
        if number not in kept or budget.place == "after_block":
            x = x + second * block.mlp(block.norm2(x))
        if number in kept:
            stays = list(dict.fromkeys(kept[number]))  # what is kept twice is really there once
            row = dict(zip(ids, x[0], strict=True))
            size = dict(zip(ids, sizes, strict=True))
            groups: dict[int, list[int]] = {token: [token] for token in stays if token in row}
            for pair in merged.get(number, []):
                if pair >= 0:
                    groups[pair % PACKED].append(pair // PACKED)
            options, at = parse_stage(method, budget.blocks[number]), (number, len(model.blocks))
            rule = method.merge_rule(options, parameters, at) if merged.get(number) else None
            fresh = {}
            for token, group in groups.items():
                parts = torch.stack([row[member] for member in group])
                counted = torch.tensor([size[member] for member in group])
                if rule == "count":
                    fresh[token] = row[token]
                elif rule == "longest":
                    mean = parts.mean(0)
                    fresh[token] = mean / mean.norm() * parts.norm(dim=1).max()
                else:
                    worth = _of(weighing.worth, group, ids)
                    weights = worth**weighing.weight * (counted if weighing.sized else 1.0)
                    fresh[token] = (weights[:, None] * parts).sum(0) / weights.sum()
                if rule == "as_long":
                    fresh[token] = fresh[token] * row[token].norm() / fresh[token].norm()
                if rule != "longest":
                    shares = _of(weighing.worth, group, ids) ** weighing.share
                    size[token] = float((counted * shares / shares[0]).sum())
            for token in stays:
                if token not in row:  # fused from what goes, by attention
                    weights = _received(block.attn, normed, model.cls_token is not None)
                    gone = [place for place, old in enumerate(ids) if old not in groups]
                    fresh[token] = sum((weights[place] * x[0, place] for place in gone), torch.zeros_like(x[0, 0]))
                    size[token] = 1.0
            x = torch.stack([fresh[token] for token in stays])[None]
            ids, sizes = list(stays), [size[token] for token in stays]
            if budget.place == "before_mlp":
                x = x + second * block.mlp(block.norm2(x))
    x = model.norm(x)
    if set(sizes) != {1.0} and model.global_pool == "avg":
        prefix = model.num_prefix_tokens
        weights = torch.tensor(sizes[prefix:])
        pooled = (weights[:, None] * x[0, prefix:]).sum(0) / weights.sum()
        return model.head(model.head_drop(model.fc_norm(pooled[None])))
    return model.forward_head(x)


def _of(values: Tensor | None, group: list[int], ids: list[int]) -> Tensor:
    """Of [1, tokens] values those of some tokens by id; ones where there are no values."""
    return torch.ones(len(group)) if values is None else values[0, [ids.index(member) for member in group]]


def _weighing(
    model: Any, budget: Budget, number: int, normed: Tensor, ids: list[int], sizes: Tensor | None
) -> Weighing:
    """What tokens count where they merge."""
    method, parameters = get_method(budget.method), parameters_of(budget)
    class_token = model.cls_token is not None
    bias = None if sizes is None else sizes.log()[None, None, None]
    places = places_of(model)
    if places is not None:
        places = follow(places, torch.tensor([ids]), model.num_prefix_tokens)
    seen = look(model, number, normed, weights=rows_read(method, class_token), bias=bias, places=places)
    at = (number, len(model.blocks))
    prefix, averaged = model.num_prefix_tokens, model.global_pool == "avg"
    evidence = Evidence(seen.attention, seen.keys, seen.values, prefix, class_token, at, averaged=averaged)
    return method.weighing(evidence, parameters)


def _branches(block: Any) -> tuple[Tensor, Tensor]:
    """Layer scales of a block's two branches; 1 where there are none."""
    scales = [getattr(block, f"gamma_{branch}", None) for branch in (1, 2)]
    if hasattr(block, "ls1"):
        scales = [getattr(block.ls1, "gamma", None), getattr(block.ls2, "gamma", None)]
    one = torch.ones(())
    return one if scales[0] is None else scales[0], one if scales[1] is None else scales[1]


def _attention(model: Any, number: int, x: Tensor, ids: list[int], sizes: Tensor | None) -> Tensor:
    """A block's attention by timm's own module, given only the tokens that are left."""
    attn = model.blocks[number].attn
    if isinstance(model, Eva):
        grid = model.patch_embed.grid_size
        empty = torch.zeros(1, *(grid if model.dynamic_img_size else (grid[0] * grid[1],)), x.shape[2])
        rope = model._pos_embed(empty)[1]
        if rope is not None:
            rope = rope[number] if model.rope_mixed else rope
            patches = torch.tensor([token - model.num_prefix_tokens for token in ids[model.num_prefix_tokens :]])
            rope = rope[..., patches, :]
        return attn(x, rope=rope, attn_mask=None if sizes is None else sizes.log()[None])
    if isinstance(model, Beit):
        bias = 0.0 if sizes is None else sizes.log()
        for table in (attn, model.rel_pos_bias):
            if table is not None and getattr(table, "relative_position_bias_table", None) is not None:
                whole = table._get_rel_pos_bias() if table is attn else table()[None]
                bias = bias + whole.reshape(attn.num_heads, *whole.shape[-2:])[:, ids][:, :, ids]
        qkv = F.linear(x, attn.qkv.weight, torch.cat([attn.q_bias, attn.k_bias, attn.v_bias]))[0]
        q, k, v = qkv.reshape(len(ids), 3, attn.num_heads, -1).permute(1, 2, 0, 3)
        out = ((q @ k.transpose(1, 2) * attn.scale + bias).softmax(-1) @ v).transpose(0, 1).reshape(1, len(ids), -1)
        return attn.proj(out)
    return attn(x) if sizes is None else _attend_by_size(attn, x, sizes)


def _heads(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [heads, tokens, head_dim] of one image."""
    parts = attn.qkv(x)[0].reshape(x.shape[1], 3, attn.num_heads, -1).permute(1, 2, 0, 3)
    return attn.q_norm(parts[0]), attn.k_norm(parts[1]), parts[2]


def _attend_by_size(attn: Any, x: Tensor, sizes: Tensor) -> Tensor:
    """Proportional attention: a token that stands for s patches is attended to as s equal ones."""
    q, k, v = _heads(attn, x)
    logits = q @ k.transpose(1, 2) * attn.scale
    weights = (logits - logits.amax(-1, keepdim=True)).exp() * sizes
    out = attn.norm((F.normalize(weights, p=1, dim=-1) @ v).transpose(0, 1).reshape(1, x.shape[1], -1))
    return attn.proj(out if attn.gate is None else out * attn.gate(x).sigmoid())


def _received(attn: Any, x: Tensor, class_token: bool) -> Tensor:
    """Attention [tokens] that the class token, or else the average token, pays, averaged over heads."""
    q, k, _ = _heads(attn, x)
    weights = (q @ k.transpose(1, 2) * attn.scale).softmax(-1).mean(0)
    return weights[0] if class_token else weights.mean(0)
