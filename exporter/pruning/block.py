"""One transformer block, opened: attention with its matrix, and places that follow the tokens.

A plain ViT adds positions once, before the first block. EVA, DINOv3 and RoPE ViTs turn queries and keys by their
patch's place in every block, BEiT adds a learned bias for every pair of places: there, a block has to know which tokens
are left.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    pairs = None
    if whole.pairs is not None:
        tokens = whole.pairs.shape[-1]
        pairs = whole.pairs.flatten()[ids.unsqueeze(2) * tokens + ids.unsqueeze(1)]
    return Places(tuple(rope), pairs)


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


def attend(
    model: Any,
    index: int,
    x: Tensor,
    *,
    weights: Rows = "all",
    bias: Tensor | None = None,
    places: Places | None = None,
    squares: bool = False,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor, FirstRow | None]:
    """A block's attention spelled out over timm's own submodules, with what a stage wants to see.

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

    Returns:
        the block's attention output [batch, tokens, width], scaled as the block scales it; the softmax attention
        [batch, heads, tokens or 1, tokens] as `weights` says, or None; keys, before they are turned by places, and
        values [batch, heads, tokens, head_dim]; and the first row with the values' squares, or None.
    """
    block = model.blocks[index]
    attn = block.attn
    q, k, v = _heads(attn, x)
    keys = k
    rope = None if places is None else places.rope_of(index)
    if rope is not None:
        q, k = (_turned(attn, part, rope) for part in (q, k))
    learned = None if places is None else pair_bias(model, block, places.pairs)
    if learned is not None:
        bias = learned if bias is None else learned + bias
    attention, row = None, None
    if weights != "none":
        asked, sums, heads = q if weights == "all" else q[:, :, :1], None, q.shape[1]
        if squares and weights == "first":
            mean = mean_of_heads(keys).square().unsqueeze(1)
            sums = torch.cat([asked * attn.scale * k, v.square(), mean], dim=1).sum(-1)
            logits = sums[:, :heads].unsqueeze(2)
        else:
            logits = (asked * attn.scale) @ k.transpose(-2, -1)
        if bias is not None:
            logits = logits + (bias if weights == "all" else bias[:, :, :1])
        attention = logits.softmax(dim=-1)
        if sums is not None:
            row = FirstRow(logits[:, :, 0], sums[:, heads:-1].sum(1), sums[:, -1])
    if attention is not None and weights == "all":
        out = attention @ v
    else:
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    out = out.transpose(1, 2).flatten(2)
    out = out if not hasattr(attn, "norm") else attn.norm(out)
    if getattr(attn, "gate", None) is not None:
        out = out * attn.gate(x).sigmoid()
    return scaled(block, 1, attn.proj(out)), attention, keys, v, row


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
    """Queries, keys and values [batch, heads, tokens, head_dim], normalized as the model has it."""
    if attn.qkv is None:
        q, k, v = (layer(x).unflatten(-1, (-1, attn.head_dim)) for layer in (attn.q_proj, attn.k_proj, attn.v_proj))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    else:
        bias = attn.qkv.bias
        if getattr(attn, "q_bias", None) is not None:  # keys have none, or zeros
            bias = torch.cat([attn.q_bias, attn.k_bias, attn.v_bias])
        qkv = nn.functional.linear(x, attn.qkv.weight, bias)
        q, k, v = qkv.unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    if hasattr(attn, "q_norm"):
        q, k = attn.q_norm(q), attn.k_norm(k)
    groups = getattr(attn, "num_kv_groups", 1)
    return (q, k, v) if groups == 1 else (q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1))


def _turned(attn: Any, x: Tensor, rope: Tensor) -> Tensor:
    """Queries or keys with their patches turned by their places."""
    prefix, half = attn.num_prefix_tokens, getattr(attn, "rotate_half", False)
    return torch.cat([x[:, :, :prefix], apply_rot_embed_cat(x[:, :, prefix:], rope, half=half)], dim=2)
