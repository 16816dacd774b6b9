"""Token reduction as a paper would run it: one image at a time, rows cut out with a mask, merged in a loop.

An independent forward that the static form is held against: same decisions, timm's own (fused) attention, no gather, no
one-hot product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
from .methods.evidence import Evidence
from .methods.options import parameters_of, parse_stage
from .methods.selection import BY_SIZE, Weighing
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
        kept: by block, [n, tokens after it] token ids, see `decisions.Trace`.
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
    proportional, class_token = method.proportional(parameters), model.cls_token is not None
    x = embed(model, image)
    whole = x.shape[1]
    ids = list(range(whole))
    sizes = [1.0] * whole
    for number, block in enumerate(model.blocks):
        normed = block.norm1(x)
        factors = torch.tensor(sizes) if proportional and set(sizes) != {1.0} else None
        first, second = _branches(block)
        stage = None
        if number in kept:
            pairs = merged.get(number, [])
            weighing = _weighing(model, budget, number, normed, ids, factors) if pairs else BY_SIZE
            stage = _Stage(model, budget, number, kept[number], pairs, weighing, normed)
        if stage is not None and budget.place == "before_queries" and rows_read(method, class_token) != "all":
            all_ids, (x, ids, sizes) = ids, stage(x, ids, sizes)
            x = x + first * _asked(model, number, block.norm1(x), ids, normed, all_ids, factors)
        else:
            x = x + first * _attention(model, number, normed, ids, factors)
            if budget.place == "after_block":
                x = x + second * block.mlp(block.norm2(x))
            if stage is not None:
                x, ids, sizes = stage(x, ids, sizes)
        if budget.place != "after_block":
            x = x + second * block.mlp(block.norm2(x))
    x = model.norm(x)
    if set(sizes) != {1.0} and model.global_pool == "avg":
        prefix = model.num_prefix_tokens
        weights = torch.tensor(sizes[prefix:])
        pooled = (weights[:, None] * x[0, prefix:]).sum(0) / weights.sum()
        return model.head(model.head_drop(model.fc_norm(pooled[None])))
    return model.forward_head(x)


@dataclass(frozen=True)
class _Stage:
    """What a stage leaves of one image's tokens.

    Attributes:
        model, budget: see `drop_tokens`.
        number: of the block.
        kept: ids that stay.
        pairs: packed ids of what merges.
        weighing: what tokens count where they merge.
        normed: [1, tokens, width], what the block's attention gets.
    """

    model: Any
    budget: Budget
    number: int
    kept: list[int]
    pairs: list[int]
    weighing: Weighing
    normed: Tensor

    def __call__(self, x: Tensor, ids: list[int], sizes: list[float]) -> tuple[Tensor, list[int], list[float]]:
        """Tokens [1, tokens that stay, width], their ids and sizes, of those before the stage."""
        stays = list(dict.fromkeys(self.kept))  # what is kept twice is really there once
        row = dict(zip(ids, x[0], strict=True))
        size = dict(zip(ids, sizes, strict=True))
        groups: dict[int, list[int]] = {token: [token] for token in stays if token in row}
        for pair in self.pairs:
            if pair >= 0:
                groups[pair % PACKED].append(pair // PACKED)
        method, at = get_method(self.budget.method), (self.number, len(self.model.blocks))
        options, parameters = parse_stage(method, self.budget.blocks[self.number]), parameters_of(self.budget)
        rule = method.merge_rule(options, parameters, at) if self.pairs else None
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
                worth = _of(self.weighing.worth, group, ids)
                weights = worth**self.weighing.weight * (counted if self.weighing.sized else 1.0)
                fresh[token] = (weights[:, None] * parts).sum(0) / weights.sum()
            if rule == "as_long":
                fresh[token] = fresh[token] * row[token].norm() / fresh[token].norm()
            if rule != "longest":
                shares = _of(self.weighing.worth, group, ids) ** self.weighing.share
                size[token] = float((counted * shares / shares[0]).sum())
        for token in stays:
            if token not in row:  # fused from what goes, by attention
                weights = _received(self.model.blocks[self.number].attn, self.normed, self.model.cls_token is not None)
                gone = [place for place, old in enumerate(ids) if old not in groups]
                fresh[token] = sum((weights[place] * x[0, place] for place in gone), torch.zeros_like(x[0, 0]))
                size[token] = 1.0
        return torch.stack([fresh[token] for token in stays])[None], stays, [size[token] for token in stays]


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
        rope = _turns(model, number, ids[model.num_prefix_tokens :])
        return attn(x, rope=rope, attn_mask=None if sizes is None else sizes.log()[None])
    if isinstance(model, Beit):
        return _attend_by_place(model, number, x, ids, x, ids, sizes)
    return attn(x) if sizes is None else _attend_by_size(attn, x, x, sizes)


def _asked(
    model: Any, number: int, asking: Tensor, left: list[int], x: Tensor, ids: list[int], sizes: Tensor | None
) -> Tensor:
    """A block's attention of tokens that are left, or merged, to all that there were before the stage."""
    attn = model.blocks[number].attn
    if isinstance(model, Beit):
        return _attend_by_place(model, number, asking, left, x, ids, sizes)
    sizes = torch.ones(len(ids)) if sizes is None else sizes
    if not isinstance(model, Eva):
        return _attend_by_size(attn, asking, x, sizes)
    # timm's own module again, on both sequences in one: those that ask are seen by nobody.
    mask = torch.cat([torch.full((len(left),), -torch.inf), sizes.log()])[None]
    rope = _turns(model, number, [*left[model.num_prefix_tokens :], *ids])
    return attn(torch.cat([asking, x], dim=1), rope=rope, attn_mask=mask)[:, : len(left)]


def _turns(model: Any, number: int, ids: list[int]) -> Tensor | None:
    """Sines and cosines by which EVA turns some tokens; prefix tokens stay as they are."""
    grid, prefix = model.patch_embed.grid_size, model.num_prefix_tokens
    empty = torch.zeros(1, *(grid if model.dynamic_img_size else (grid[0] * grid[1],)), model.embed_dim)
    rope = model._pos_embed(empty)[1]
    if rope is None:
        return None
    rope = rope[number] if model.rope_mixed else rope
    still = torch.cat([torch.zeros(rope.shape[-1] // 2), torch.ones(rope.shape[-1] // 2)])
    return torch.stack([still.expand_as(rope[..., 0, :]) if i < prefix else rope[..., i - prefix, :] for i in ids], -2)


def _attend_by_place(
    model: Any, number: int, asking: Tensor, left: list[int], x: Tensor, ids: list[int], sizes: Tensor | None
) -> Tensor:
    """BEiT's attention with its bias for every pair of places."""
    attn = model.blocks[number].attn
    bias = 0.0 if sizes is None else sizes.log()
    for table in (attn, model.rel_pos_bias):
        if table is not None and getattr(table, "relative_position_bias_table", None) is not None:
            whole = table._get_rel_pos_bias() if table is attn else table()[None]
            bias = bias + whole.reshape(attn.num_heads, *whole.shape[-2:])[:, left][:, :, ids]
    biases = torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
    made = (F.linear(tokens, attn.qkv.weight, biases)[0] for tokens in (asking, x))
    (q, _, _), (_, k, v) = (qkv.reshape(len(qkv), 3, attn.num_heads, -1).permute(1, 2, 0, 3) for qkv in made)
    out = ((q @ k.transpose(1, 2) * attn.scale + bias).softmax(-1) @ v).transpose(0, 1).reshape(1, len(left), -1)
    return attn.proj(out)


def _heads(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [heads, tokens, head_dim] of one image."""
    parts = attn.qkv(x)[0].reshape(x.shape[1], 3, attn.num_heads, -1).permute(1, 2, 0, 3)
    return attn.q_norm(parts[0]), attn.k_norm(parts[1]), parts[2]


def _attend_by_size(attn: Any, asking: Tensor, x: Tensor, sizes: Tensor) -> Tensor:
    """Proportional attention: a token that stands for s patches is attended to as s equal ones."""
    q, (_, k, v) = _heads(attn, asking)[0], _heads(attn, x)
    logits = q @ k.transpose(1, 2) * attn.scale
    weights = (logits - logits.amax(-1, keepdim=True)).exp() * sizes
    out = attn.norm((F.normalize(weights, p=1, dim=-1) @ v).transpose(0, 1).reshape(1, len(asking[0]), -1))
    return attn.proj(out if attn.gate is None else out * attn.gate(asking).sigmoid())


def _received(attn: Any, x: Tensor, class_token: bool) -> Tensor:
    """Attention [tokens] that the class token, or else the average token, pays, averaged over heads."""
    q, k, _ = _heads(attn, x)
    weights = (q @ k.transpose(1, 2) * attn.scale).softmax(-1).mean(0)
    return weights[0] if class_token else weights.mean(0)
