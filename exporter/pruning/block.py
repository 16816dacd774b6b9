"""One transformer block, opened: attention with its matrix, and places that follow the tokens.

A plain ViT adds positions once, before the first block. EVA, DINOv3 and RoPE ViTs turn queries and keys by their
patch's place in every block, BEiT adds a learned bias for every pair of places: there, a block has to know which tokens
are left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from timm.layers import apply_rot_embed_cat
from timm.models.beit import Beit
from timm.models.eva import Eva
from torch import Tensor, nn

Rows = Literal["all", "first", "none"]


class FirstRow(NamedTuple):
    """What the first token asks of all, and how long their values are.

    Attributes:
        logits: [batch, heads, tokens], what is normalized to that row of the attention.
        squares: [batch, tokens], the values' squares summed over all heads.
        key_squares: [batch, tokens], the squares of the heads' mean key, summed.
    """

    logits: Tensor
    squares: Tensor
    key_squares: Tensor


@dataclass(frozen=True)
class Places:
    """Where the tokens of a sequence stand, as blocks read it.

    Attributes:
        rope: sine and cosine of every patch, [..., patches, 2 * head_dim]; one for all blocks, or one for each. Empty:
            the model turns nothing.
        pairs: [tokens, tokens] or [batch, tokens, tokens] int64 row of the bias tables for every pair; None: there is
            no bias.
    """

    rope: tuple[Tensor, ...] = ()
    pairs: Tensor | None = None

    def rope_of(self, block: int) -> Tensor | None:
        """What one block turns its queries and keys by."""
        return self.rope[block if len(self.rope) > 1 else 0] if self.rope else None


def embed(model: Any, image: Tensor) -> Tensor:
    """Everything before the first block, as timm's `forward_features` does it."""
    x = model.patch_embed(image)
    if isinstance(model, Beit):
        x = torch.cat([model.cls_token.expand(len(x), -1, -1), x], dim=1)
        return x if model.pos_embed is None else x + model.pos_embed
    if isinstance(model, Eva):
        return model.norm_pre(model._pos_embed(x)[0])
    return model.norm_pre(model.patch_drop(model._pos_embed(x)))


def places_of(model: Any) -> Places | None:
    """Places of the whole sequence; None where blocks do not ask for any."""
    if isinstance(model, Eva) and model.rope is not None:
        embedding: Any = model.rope
        cached = hasattr(embedding, "feat_shape") and not model.dynamic_img_size
        rope = embedding.get_embed() if cached else embedding.get_embed(shape=model.patch_embed.grid_size)
        return Places(tuple(rope.unbind(0)) if model.rope_mixed else (rope,))
    if isinstance(model, Beit):
        holder: Any = model.blocks[0].attn if model.rel_pos_bias is None else model.rel_pos_bias
        index = holder.relative_position_index
        return None if index is None else Places(pairs=index)
    return None


def follow(whole: Places, ids: Tensor, prefix: int) -> Places:
    """Places of some tokens.

    Args:
        whole: of the whole sequence.
        ids: [batch, tokens] int64, which tokens are left, prefix tokens first.
        prefix: how many of them are no patches.
    """
    rope: list[Tensor] = []
    for turn in whole.rope:
        rows = (ids[:, prefix:] - prefix).flatten()
        heads = turn if turn.ndim == 3 else turn.unsqueeze(0)
        picked = heads.index_select(1, rows).unflatten(1, (ids.shape[0], -1))  # [heads or 1, batch, patches, dim]
        rope.append(picked.transpose(0, 1))
    return Places(tuple(rope), None if whole.pairs is None else _pairs(whole.pairs, ids, ids))


def between(whole: Places | None, own: Places | None, ids: Tensor, keys: Tensor) -> Places | None:
    """Places of tokens that ask others.

    Args:
        whole: of the whole sequence; None: the model asks for none.
        own: of the tokens that ask.
        ids: [batch, asking] int64, those tokens.
        keys: [batch, tokens] int64, the tokens that they ask.
    """
    if whole is None or whole.pairs is None:
        return own
    return Places(pairs=_pairs(whole.pairs, ids, keys))


def _pairs(whole: Tensor, ids: Tensor, keys: Tensor) -> Tensor:
    """Rows [batch, asking, tokens] of the bias tables for every pair of tokens."""
    return whole.flatten()[ids.unsqueeze(2) * whole.shape[-1] + keys.unsqueeze(1)]


def pair_bias(model: Any, block: Any, pairs: Tensor | None) -> Tensor | None:
    """BEiT's learned bias [batch or 1, heads, tokens, tokens] of a block; None where there is none."""
    if pairs is None:
        return None
    own = block.attn.relative_position_bias_table
    shared = None if model.rel_pos_bias is None else model.rel_pos_bias.relative_position_bias_table
    tables = [table for table in (own, shared) if table is not None]
    table = tables[0] if len(tables) == 1 else tables[0] + tables[1]
    pairs = pairs if pairs.ndim == 3 else pairs.unsqueeze(0)
    return table[pairs].permute(0, 3, 1, 2)


def run_whole(model: Any, index: int, x: Tensor, places: Places | None) -> Tensor:
    """timm's own block on a sequence that nothing has left."""
    block = model.blocks[index]
    if isinstance(model, Eva):
        return block(x, rope=None if places is None else places.rope_of(index))
    if isinstance(model, Beit):
        return block(x, shared_rel_pos_bias=None if model.rel_pos_bias is None else model.rel_pos_bias())
    return block(x)


@dataclass(frozen=True)
class Seen:
    """What the tokens of a block show each other before their values are mixed.

    Attributes:
        attention: softmax attention [batch, heads, tokens or 1, tokens], as many rows as were wanted; None: none.
        keys: before they are turned by places, [batch, heads, tokens, head_dim].
        values: as keys.
        first: what the first token asks, with the values' squares; None: nobody wanted it.
        queries: of all tokens, turned; None: they have not asked.
        turned: keys as queries meet them.
        added: to the logits of those queries, [batch or 1, heads or 1, asking or 1, tokens]; None: nothing.
    """

    attention: Tensor | None
    keys: Tensor
    values: Tensor
    first: FirstRow | None
    queries: Tensor | None
    turned: Tensor
    added: Tensor | None


def look(
    model: Any,
    index: int,
    x: Tensor,
    *,
    weights: Rows = "all",
    bias: Tensor | None = None,
    places: Places | None = None,
    squares: bool = False,
    asks: bool = True,
) -> Seen:
    """Queries, keys and values of a block, and the rows of its attention matrix that a stage wants to see.

    Args:
        model: a supported timm model.
        index: of the block.
        x: [batch, tokens, width], already normalized.
        weights: which rows of the attention matrix to materialize: `all` (as timm does without fused attention), the
            `first` token's, which costs one row of the product, or `none`.
        bias: [batch, 1, 1, tokens], added to the logits of every query; None: nothing.
        places: of the tokens, where the model asks for them.
        squares: whether to sum the values' squares together with the products of the first row, which takes a GPU no
            kernel more; only with `weights` of `first`.
        asks: whether all tokens ask. Else keys and values are all that is made, and with `weights` of `first` that
            token's query: it must be a prefix token, which has no place; see `ask`.
    """
    block = model.blocks[index]
    attn, rope = block.attn, None if places is None else places.rope_of(index)
    q: Tensor | None = None
    if asks:
        q, keys, values = _heads(attn, x)
    else:
        keys, values = _keys_and_values(attn, x)
        q = _queries(attn, x[:, :1]) if weights == "first" else None
    turned = keys if rope is None else _turned(attn, keys, rope)
    if asks and q is not None and rope is not None:
        q = _turned(attn, q, rope)
    if not asks and places is not None and places.pairs is not None:
        places = Places(pairs=places.pairs[..., :1, :])
    added = _added(model, block, bias, places) if asks or weights != "none" else None
    attention, row = None, None
    if q is not None and weights != "none":
        asked, sums, heads = q if weights == "all" else q[:, :, :1], None, q.shape[1]
        if squares and weights == "first":
            mean = mean_of_heads(keys).square().unsqueeze(1)
            sums = torch.cat([asked * attn.scale * turned, values.square(), mean], dim=1).sum(-1)
            logits = sums[:, :heads].unsqueeze(2)
        else:
            logits = (asked * attn.scale) @ turned.transpose(-2, -1)
        if added is not None:
            logits = logits + (added if weights == "all" else added[:, :, :1])
        attention = logits.softmax(dim=-1)
        if sums is not None:
            row = FirstRow(logits[:, :, 0], sums[:, heads:-1].sum(1), sums[:, -1])
    return Seen(attention, keys, values, row, q if asks else None, turned, added if asks else None)


def mix(seen: Seen) -> Tensor:
    """Values mixed for every token that has asked, [batch, asking, heads * head_dim], before any projection."""
    assert seen.queries is not None, "the tokens of this block have not asked"
    if seen.attention is not None and seen.attention.shape[2] == seen.queries.shape[2]:
        out = seen.attention @ seen.values
    else:
        out = nn.functional.scaled_dot_product_attention(seen.queries, seen.turned, seen.values, attn_mask=seen.added)
    return out.transpose(1, 2).flatten(2)


def ask(
    model: Any, index: int, x: Tensor, seen: Seen, *, bias: Tensor | None = None, places: Places | None = None
) -> Tensor:
    """A block's attention output [batch, asking, width] for some tokens alone, scaled as the block scales it.

    Args:
        model, index: see `look`.
        x: [batch, asking, width], the tokens that ask, normalized.
        seen: keys and values of all tokens.
        bias: [batch, 1, 1, tokens], see `look`.
        places: of the tokens that ask, with `pairs` [batch or 1, asking, tokens]; without `rope` if they are all prefix
            tokens.
    """
    block = model.blocks[index]
    q, rope = _queries(block.attn, x), None if places is None else places.rope_of(index)
    if rope is not None:
        q = _turned(block.attn, q, rope)
    added = _added(model, block, bias, places)
    return project(block, mix(replace(seen, attention=None, queries=q, added=added)), x)


def project(block: Any, mixed: Tensor, x: Tensor) -> Tensor:
    """What a block adds to some tokens after their values are mixed, [batch, tokens, width].

    Args:
        block: of a supported timm model.
        mixed: see `mix`.
        x: the same tokens, normalized: a gate reads them.
    """
    attn = block.attn
    out = mixed if not hasattr(attn, "norm") else attn.norm(mixed)
    if getattr(attn, "gate", None) is not None:
        out = out * attn.gate(x).sigmoid()
    return scaled(block, 1, attn.proj(out))


def run_first(
    model: Any,
    index: int,
    x: Tensor,
    count: int,
    bias: Tensor | None = None,
    places: Places | None = None,
    asks: bool = False,
) -> Tensor:
    """A block for its first tokens alone, [batch, count, width]: keys and values of all, all else of these.

    Args:
        model, index: see `look`.
        x: [batch, tokens, width].
        count: how many; no more than there are prefix tokens.
        bias, places: of all tokens, see `look`.
        asks: whether all tokens ask nevertheless.
    """
    block = model.blocks[index]
    normed = block.norm1(x)
    if asks:
        seen = look(model, index, normed, weights="none", bias=bias, places=places)
        return mlp(block, x[:, :count] + project(block, mix(seen)[:, :count], normed[:, :count]))
    seen = look(model, index, normed, weights="none", places=places, asks=False)
    pairs = None if places is None or places.pairs is None else places.pairs[..., :count, :]
    out = ask(model, index, normed[:, :count], seen, bias=bias, places=Places(pairs=pairs))
    return mlp(block, x[:, :count] + out)


def mlp(block: Any, x: Tensor) -> Tensor:
    """A block's second half, with its residual."""
    return x + scaled(block, 2, block.mlp(block.norm2(x)))


def scaled(block: Any, branch: int, x: Tensor) -> Tensor:
    """Layer scale of a block's first (attention) or second (MLP) branch, if it has one."""
    if hasattr(block, f"ls{branch}"):
        return getattr(block, f"ls{branch}")(x)
    gamma = getattr(block, f"gamma_{branch}")
    return x if gamma is None else gamma * x


def mean_of_heads(keys: Tensor) -> Tensor:
    """Keys [batch, tokens, dim] averaged over heads by additions, which TensorRT fuses with what follows.

    Args:
        keys: [batch, heads, tokens, dim].
    """
    first, *others = keys.unbind(1)
    for other in others:
        first = first + other
    return first / keys.shape[1]


def _heads(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [batch, heads, tokens, head_dim], normalized as the model has it, by one projection."""
    if attn.qkv is None:
        return _queries(attn, x), *_keys_and_values(attn, x)
    qkv = nn.functional.linear(x, attn.qkv.weight, _bias(attn))
    q, k, v = qkv.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return (attn.q_norm(q) if hasattr(attn, "q_norm") else q), *_normed(attn, k, v)


def _keys_and_values(attn: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values of `_heads` alone."""
    if attn.qkv is None:
        k, v = (layer(x).unflatten(-1, (-1, attn.head_dim)).transpose(1, 2) for layer in (attn.k_proj, attn.v_proj))
        return _normed(attn, k, v)
    width, bias = attn.qkv.out_features // 3, _bias(attn)
    kv = nn.functional.linear(x, attn.qkv.weight[width:], None if bias is None else bias[width:])
    k, v = kv.unflatten(-1, (2, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return _normed(attn, k, v)


def _normed(attn: Any, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys normalized as the model has it, and both once for every head of queries."""
    k, groups = attn.k_norm(k) if hasattr(attn, "k_norm") else k, getattr(attn, "num_kv_groups", 1)
    return (k, v) if groups == 1 else (k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1))


def _queries(attn: Any, x: Tensor) -> Tensor:
    """Queries [batch, heads, tokens, head_dim] of some tokens, normalized as the model has it."""
    if attn.qkv is None:
        q = attn.q_proj(x)
    else:
        width, bias = attn.qkv.out_features // 3, _bias(attn)
        q = nn.functional.linear(x, attn.qkv.weight[:width], None if bias is None else bias[:width])
    q = q.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
    return attn.q_norm(q) if hasattr(attn, "q_norm") else q


def _bias(attn: Any) -> Tensor | None:
    """Of the projection to queries, keys and values."""
    if getattr(attn, "q_bias", None) is None:
        bias: Tensor | None = attn.qkv.bias
        return bias
    return torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])  # keys have none, or zeros


def _added(model: Any, block: Any, bias: Tensor | None, places: Places | None) -> Tensor | None:
    """What is added to attention logits: a bias of every key, and one of every pair of places."""
    learned = None if places is None else pair_bias(model, block, places.pairs)
    if learned is None or bias is None:
        return bias if learned is None else learned
    return learned + bias


def _turned(attn: Any, x: Tensor, rope: Tensor) -> Tensor:
    """Queries or keys with their patches turned by their places."""
    prefix, half = attn.num_prefix_tokens, getattr(attn, "rotate_half", False)
    return torch.cat([x[:, :, :prefix], apply_rot_embed_cat(x[:, :, prefix:], rope, half=half)], dim=2)
