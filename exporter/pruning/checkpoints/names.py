"""The names that `transformers` gives a vision model's tensors, of its 4.x and 5.x, brought to timm's."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ...core.errors import InputError, excerpt

_STEM = re.compile(r"^(.*?)embeddings\.patch_embeddings?\.(?:projection\.)?weight$")
_BLOCK = re.compile(r"^(?:encoder\.|model\.)?layers?\.(\d+)\.(?:blocks\.(\d+)\.)?(.+)$")
_PART = re.compile(r"^(?:attention\.(?:attention\.|self\.)?|self_attn\.)(q|k|v)(?:uery|ey|alue|_proj)\.(weight|bias)$")
_TABLE = re.compile(
    r"^(?:attention\.(?:attention\.|self\.)?)?(?:relative_position_bias\.)?relative_position_bias_table$"
)
# Inside a block, by what begins a name there.
_IN_BLOCK = {
    "attention.output.dense.": "attn.proj.",
    "attention.o_proj.": "attn.proj.",
    "self_attn.out_proj.": "attn.proj.",
    "intermediate.dense.": "mlp.fc1.",
    "output.dense.": "mlp.fc2.",
    "mlp.up_proj.": "mlp.fc1.",
    "mlp.down_proj.": "mlp.fc2.",
    "mlp.weights_in.": "mlp.fc1.",
    "mlp.weights_out.": "mlp.fc2.",
    "mlp.fc": "mlp.fc",
    "layernorm_before.": "norm1.",
    "layernorm_after.": "norm2.",
    "layer_norm": "norm",
    "norm": "norm",
    "lambda_": "gamma_",
}
_OUTSIDE_BLOCKS = {
    "embeddings.patch_embeddings.projection.": "patch_embed.proj.",
    "embeddings.patch_embeddings.": "patch_embed.proj.",
    "embeddings.patch_embedding.": "patch_embed.proj.",
    "embeddings.norm.": "patch_embed.norm.",
    "embeddings.cls_token": "cls_token",
    "embeddings.class_embedding": "cls_token",
    "embeddings.distillation_token": "dist_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.position_embedding.weight": "pos_embed",
    "encoder.relative_position_bias.relative_position_bias_table": "rel_pos_bias.relative_position_bias_table",
    "shared_position_bias.relative_position_bias_table": "rel_pos_bias.relative_position_bias_table",
    "relative_position_bias.relative_position_bias_table": "rel_pos_bias.relative_position_bias_table",
    "pre_layrnorm.": "norm_pre.",
    "post_layernorm.": "norm.",
    "layernorm.": "norm.",
    "norm.": "norm.",
    "pooler.layernorm.": "fc_norm.",
    "head.probe": "attn_pool.latent",
    "head.attention.in_proj_": "attn_pool.in_proj_",
    "head.attention.out_proj.": "attn_pool.proj.",
    "head.layernorm.": "attn_pool.norm.",
    "head.mlp.": "attn_pool.mlp.",
}
_HEADS = {
    "classifier.": "head.",
    "cls_classifier.": "head.",
    "distillation_classifier.": "head_dist.",
    "visual_projection.": "head.",
}
_UNUSED = re.compile(r"(^|\.)(mask_token|position_ids|relative_position_index)$|^pooler\.dense\.")
_BESIDE = re.compile(r"^(text_model|text_projection|logit_scale|logit_bias)(\.|$)")


@dataclass(frozen=True)
class Style:
    """What a kind of model does otherwise than most.

    Attributes:
        scale: what timm calls the factors that `transformers` calls layer_scale1 and layer_scale2.
        registers: whether the class token has a position, and the registers have none.
        distilled: whether a distillation token is classified; it is a register where it is not.
        gated: what becomes of an MLP's gate and its other half: `split` has each by itself, `packed` both in one.
        dropped: names of tensors that the model has and its classifier never reads, by what begins them.
    """

    scale: str = "ls{}.gamma"
    registers: bool = False
    distilled: bool = True
    gated: str = ""
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Renamed:
    """Tensors under timm's names.

    Attributes:
        held: by name; what has no place in timm keeps its own.
        left_out: names of the file's that no inference needs, or that belong to something beside the model.
        made_up: names of tensors of zeros that the layout has none of.
    """

    held: dict[str, Tensor]
    left_out: tuple[str, ...] = ()
    made_up: tuple[str, ...] = ()


def prefix_of(names: Mapping[str, Tensor]) -> str | None:
    """What begins the names of a model of `transformers`, such as `vit.`; None where the names are not its.

    Raises:
        InputError: several models are there.
    """
    found = sorted({match[1] for match in map(_STEM.match, names) if match})
    if len(found) > 1:
        raise InputError(f"there are several image models ({', '.join(found)}); save one of them")
    return found[0] if found else None


def rename(held: Mapping[str, Tensor], prefix: str, style: Style, shown: str) -> Renamed:
    """Bring a model's tensors to timm's names: queries, keys and values as one, positions as a table of tokens.

    Args:
        held: the file's tensors by the names of `transformers`.
        prefix: see `prefix_of`.
        style: of the kind of model.
        shown: the file, for messages.

    Raises:
        InputError: a query, key or value is missing, or two tensors have one place.
    """
    made: dict[str, Tensor] = {}
    thirds: dict[str, dict[str, tuple[str, Tensor]]] = defaultdict(dict)
    left_out: list[str] = []
    for key, value in held.items():
        name, third = _place(key, prefix, style)
        if name is None or not value.numel():
            left_out.append(key)
        elif third:
            thirds[name][third] = (key, value)
        elif name in made:
            raise InputError(f"{shown}: {excerpt(key)} is there twice, under two names; save the model again")
        else:
            made[name] = value
    for name, parts in thirds.items():
        made |= _fused(name, parts, shown)
    _pack(made, shown)
    _shape(made, style)
    return Renamed(made, tuple(left_out), _zeros(made))


def _place(key: str, prefix: str, style: Style) -> tuple[str | None, str]:
    """(timm's name, q, k or v where it is a part of one); no name for what no inference needs."""
    if not key.startswith(prefix):
        if _BESIDE.match(key):
            return None, ""
        return _begun(key, _HEADS) or key, ""
    inner = key[len(prefix) :]
    if _UNUSED.search(inner) or inner.startswith(style.dropped or ("\0",)):
        return None, ""
    block = _BLOCK.match(inner)
    if block is None:
        name = _begun(inner, _OUTSIDE_BLOCKS) or _begun(inner, _HEADS) or (None if _BESIDE.match(inner) else key)
        return "reg_token" if name == "dist_token" and not style.distilled else name, ""
    at = f"blocks.{block[1]}." if block[2] is None else f"layers.{block[1]}.blocks.{block[2]}."
    rest = block[3]
    if rest.startswith("downsample."):
        return f"layers.{block[1]}.{rest}", ""
    part = _PART.match(rest)
    if part:
        return f"{at}attn.qkv.{part[2]}", part[1]
    if _TABLE.match(rest):
        return f"{at}attn.relative_position_bias_table", ""
    scale = re.match(r"^layer_scale([12])\.lambda1$", rest)
    if scale:
        return at + style.scale.format(scale[1]), ""
    gate = re.match(r"^mlp\.(gate|up)_proj\.", rest) if style.gated else None
    if gate:
        split = {"gate": "fc1_g", "up": "fc1_x"}[gate[1]]
        return f"{at}mlp.{split if style.gated == 'split' else gate[1]}.{rest[gate.end() :]}", ""
    name = _begun(rest, _IN_BLOCK)
    return (at + name if name else key), ""


def _begun(name: str, rules: Mapping[str, str]) -> str | None:
    """A name after the first rule that its beginning falls under; None where there is none."""
    for old, new in rules.items():
        if name.startswith(old):
            return new + name[len(old) :]
    return None


def _fused(name: str, parts: Mapping[str, tuple[str, Tensor]], shown: str) -> dict[str, Tensor]:
    """Query, key and value as one; a key without a bias leaves two, as timm has them."""
    if name.endswith(".bias") and parts.keys() == {"q", "v"}:
        stem = name.removesuffix("qkv.bias")
        return {f"{stem}q_bias": parts["q"][1], f"{stem}v_bias": parts["v"][1]}
    lacking = {"q", "k", "v"} - parts.keys()
    if lacking:
        there = next(iter(parts.values()))[0]
        wanted = " and ".join({"q": "query", "k": "key", "v": "value"}[one] for one in sorted(lacking))
        raise InputError(f"{shown} has {excerpt(there)}, but no {wanted} beside it; save the whole model")
    try:
        return {name: torch.cat([parts[one][1] for one in "qkv"])}
    except (RuntimeError, TypeError) as error:
        raise InputError(f"{shown}: {excerpt(parts['q'][0])} and its key and value are of different kinds") from error


def _pack(made: dict[str, Tensor], shown: str) -> None:
    """An MLP's gate and its other half in one, in place, where timm has them so."""
    for gate in [key for key in made if ".mlp.gate." in key]:
        up = gate.replace(".mlp.gate.", ".mlp.up.")
        if up not in made:
            raise InputError(f"{shown} has {excerpt(gate)}, but no {excerpt(up)} beside it; save the whole model")
        made[gate.replace(".mlp.gate.", ".mlp.fc1.")] = torch.cat((made.pop(gate), made.pop(up)))


def _shape(made: dict[str, Tensor], style: Style) -> None:
    """Tokens, tables and the pooling's products in timm's shapes, in place."""
    if "cls_token" in made:
        made["cls_token"] = made["cls_token"].reshape(1, 1, -1)
    if "pos_embed" in made and made["pos_embed"].ndim == 2:
        made["pos_embed"] = made["pos_embed"].unsqueeze(0)
    if style.registers and {"cls_token", "pos_embed", "reg_token"} <= made.keys():
        made["cls_token"] = made["cls_token"] + made["pos_embed"][:, :1]
        made["pos_embed"] = made["pos_embed"][:, 1:]
    for kind in ("weight", "bias"):
        packed = made.pop(f"attn_pool.in_proj_{kind}", None)
        if packed is not None:
            width = len(packed) // 3
            made[f"attn_pool.q.{kind}"], made[f"attn_pool.kv.{kind}"] = packed[:width], packed[width:]


def _zeros(made: dict[str, Tensor]) -> tuple[str, ...]:
    """A projection has no bias, and timm's classifiers have one: zeros, in place; the names of them."""
    weight = made.get("head.weight")
    if weight is None or "head.bias" in made:
        return ()
    made["head.bias"] = weight.new_zeros(len(weight))
    return ("head.bias",)


def regrid(table: Tensor, prefix: int, grid: tuple[int, int], antialias: bool) -> Tensor:
    """A table of positions for another grid, resampled as DINOv2 of `transformers` does when it runs.

    Args:
        table: [1, prefix + side * side, width].
        prefix: tokens before the patches.
        grid: rows and columns wanted.
        antialias: as DINOv2 with registers does, and the one without does not.

    Returns:
        [1, prefix + rows * columns, width]; the table itself where the grid is its own, or it is no square.
    """
    side = math.isqrt(max(table.shape[1] - prefix, 0))
    if (side, side) == grid or side * side != table.shape[1] - prefix:
        return table
    patches = table[:, prefix:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    made = functional.interpolate(patches.float(), size=grid, mode="bicubic", align_corners=False, antialias=antialias)
    tokens = made.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1).to(table.dtype)
    return torch.cat((table[:, :prefix], tokens), dim=1)
