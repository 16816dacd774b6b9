"""Physically narrower blocks: fewer heads in qkv and proj, fewer neurons in fc1 and fc2. Checkpoint and graph shrink.

Of which models, `units` says. A head leaves whole, so the head size, its scale and with them the limits of fused
attention kernels stay those of the original model.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn

from ..core.errors import InputError, UnsupportedError
from .gates import Gates
from .shape import model_name
from .units import SLIMMABLE, attention_of, named_blocks, refuse_slimming
from .widths import BlockWidths, Widths


@dataclass(frozen=True)
class BlockParts:
    """What the units of one block are and cost.

    Attributes:
        path: of the block in the model.
        heads: how many can leave, `head_dim` channels each; 0 where the attention stays whole.
        neurons: hidden width of the MLP.
        head_parameters, neuron_parameters: weights and biases that leave with one unit.
    """

    path: str
    heads: int
    head_dim: int
    neurons: int
    head_parameters: int
    neuron_parameters: int


def parts_of(model: nn.Module) -> tuple[BlockParts, ...]:
    """The prunable units of a model.

    Raises:
        UnsupportedError: the model cannot be slimmed; with the part in the way.
    """
    reason = refuse_slimming(model)
    if reason:
        raise UnsupportedError(f"{model_name(model)} cannot be slimmed: {reason}; vitrim slims {SLIMMABLE}")
    return tuple(_parts(path, block) for path, block in named_blocks(model))


def _parts(path: str, block: Any) -> BlockParts:
    attn, fc1, fc2 = attention_of(block), block.mlp.fc1, block.mlp.fc2
    heads, head_dim, head_parameters = 0, 0, 0
    if attn is not None:
        heads, head_dim = attn.num_heads, attn.qkv.out_features // 3 // attn.num_heads
        weights = head_dim * (3 * attn.qkv.in_features + attn.proj.out_features)
        table = attn.relative_position_bias_table.shape[0] if isinstance(attn, WindowAttention) else 0
        head_parameters = weights + (0 if attn.qkv.bias is None else 3 * head_dim) + table
    return BlockParts(
        path=path,
        heads=heads,
        head_dim=head_dim,
        neurons=fc1.out_features,
        head_parameters=head_parameters,
        neuron_parameters=fc1.in_features + fc2.out_features + (0 if fc1.bias is None else 1),
    )


def whole_widths(parts: Sequence[BlockParts]) -> Widths:
    """Widths of a model that keeps all units."""
    rows = [
        BlockWidths(
            block=part.path,
            heads_before=part.heads,
            heads=tuple(range(part.heads)),
            neurons_before=part.neurons,
            neurons=tuple(range(part.neurons)),
        )
        for part in parts
    ]
    return Widths(blocks=tuple(rows))


def unfused_heads(parts: Sequence[BlockParts]) -> str | None:
    """Why TensorRT's fused attention will not take a model's heads; None where it will.

    It wants a head size that is a multiple of 8 from 16 to 256 (16, 32 or 64 for int8). Heads leave whole, so slimming
    neither breaks nor mends that.
    """
    sizes = sorted({part.head_dim for part in parts if part.heads})
    bad = [size for size in sizes if size % 8 or not 16 <= size <= 256]
    if bad:
        return f"head size {bad[0]} fits no fused attention kernel of TensorRT (a multiple of 8 from 16 to 256)"
    wide = [size for size in sizes if size not in (16, 32, 64)]
    return f"head size {wide[0]} fits no fused int8 attention of TensorRT (16, 32 or 64)" if wide else None


def check_fit(parts: Sequence[BlockParts], widths: Widths, where: str = "widths") -> None:
    """Refuse widths that are another model's.

    Raises:
        InputError: naming the row, what it says and what the model has.
    """
    if len(parts) != len(widths.blocks):
        raise InputError(f"{where}: has {len(widths.blocks)} rows under blocks, but the model has {len(parts)} blocks")
    for index, (part, row) in enumerate(zip(parts, widths.blocks, strict=True)):
        found = (row.block, row.heads_before, row.neurons_before)
        wanted = (part.path, part.heads, part.neurons)
        for key, have, want in zip(("block", "heads_before", "neurons_before"), found, wanted, strict=True):
            if have != want:
                raise InputError(f"{where}: blocks[{index}].{key} is {have}, but the model has {want} there")


@torch.no_grad()
def slim(model: nn.Module, widths: Widths, where: str = "widths") -> nn.Module:
    """A narrower copy of a model; what stays keeps its weights.

    Args:
        model: of timm; it is not changed.
        widths: what every block keeps.
        where: file name for messages.

    Raises:
        UnsupportedError: the model cannot be slimmed.
        InputError: the widths are another model's.
    """
    check_fit(parts_of(model), widths, where)
    slimmed = copy.deepcopy(model)
    for (_, block), row in zip(named_blocks(slimmed), widths.blocks, strict=True):
        if row.heads_before:
            _keep_heads(attention_of(block), row.heads)
        mlp, neurons = block.mlp, torch.tensor(row.neurons)
        mlp.fc1, mlp.fc2 = linear_rows(mlp.fc1, neurons), linear_columns(mlp.fc2, neurons)
    return slimmed


def _keep_heads(attn: Any, kept: Sequence[int]) -> None:
    """Take the other heads out of an attention, in place."""
    heads, channels = torch.tensor(kept), head_channels(attn, kept)
    thirds = torch.arange(3)[:, None] * (attn.qkv.out_features // 3)  # q, k and v stand one after the other
    attn.qkv = linear_rows(attn.qkv, (thirds + channels).flatten())
    attn.proj = linear_columns(attn.proj, channels)
    attn.num_heads = len(heads)
    if hasattr(attn, "attn_dim"):
        attn.attn_dim = len(channels)
    if isinstance(attn, WindowAttention):
        table = attn.relative_position_bias_table
        attn.relative_position_bias_table = nn.Parameter(table[:, heads].clone(), table.requires_grad)


def head_channels(attn: Any, heads: Sequence[int]) -> Tensor:
    """Channels [kept] of the attention output that belong to some of its heads."""
    head_dim = attn.qkv.out_features // 3 // attn.num_heads
    return (torch.tensor(heads)[:, None] * head_dim + torch.arange(head_dim)).flatten()


def linear_rows(layer: nn.Linear, rows: Tensor) -> nn.Linear:
    """The layer with some of its outputs only."""
    return _linear(layer.weight[rows], None if layer.bias is None else layer.bias[rows], layer.weight.requires_grad)


def linear_columns(layer: nn.Linear, columns: Tensor) -> nn.Linear:
    """The layer with some of its inputs only."""
    return _linear(layer.weight[:, columns], layer.bias, layer.weight.requires_grad)


def _linear(weight: Tensor, bias: Tensor | None, grad: bool) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight.clone().contiguous(), grad)
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone(), grad)
    return layer


def hard_gates(widths: Widths, dtype: torch.dtype = torch.float32) -> Gates:
    """Gates of 0 and 1 that do to the whole model what slimming does to its size."""

    def zero_one(kept: tuple[int, ...], whole: int) -> Tensor:
        return torch.zeros(whole, dtype=dtype).index_fill_(0, torch.tensor(kept, dtype=torch.long), 1.0)

    return Gates(
        [zero_one(row.heads, row.heads_before) for row in widths.blocks],
        [zero_one(row.neurons, row.neurons_before) for row in widths.blocks],
    )
