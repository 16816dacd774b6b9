"""What a pruning stage sees and what it answers: plain values between a method and the pruned model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from ...core.errors import InputError
from ..budget import BlockTokens, Budget, Place, first_problem


@dataclass(frozen=True)
class Evidence:
    """What a stage may look at, all of the block it sits in.

    Attributes:
        attention: [batch, heads, tokens, tokens] softmax attention, rows sum to 1; its first row alone, [batch, heads,
            1, tokens], for a method that reads no other of a model with a class token; None for one that needs none.
        keys: [batch, heads, tokens, head_dim], after any key normalization.
        values: [batch, heads, tokens, head_dim].
        prefix: prefix tokens at the front, never removed.
        class_token: whether token 0 is a class token.
        block: (0-based block, blocks of the model).
    """

    attention: Tensor | None
    keys: Tensor
    values: Tensor
    prefix: int
    class_token: bool
    block: tuple[int, int] = (0, 1)


@dataclass(frozen=True)
class Merge:
    """Tokens that do not stay but live on in ones that do.

    Attributes:
        source: [batch, merged] int64 positions in the current sequence.
        target: [batch, merged] int64 positions among the kept tokens.
        rule: `mean` weights by size; `longest` gives the mean's direction the length of the longest part (MLERP) and
            keeps no sizes.
        active: [batch] bool, images that merge; the others drop the sources. None: all merge.
    """

    source: Tensor
    target: Tensor
    rule: Literal["mean", "longest"] = "mean"
    active: Tensor | None = None


@dataclass(frozen=True)
class Selection:
    """Which tokens stay, and what becomes of the others.

    Attributes:
        kept: [batch, keep] int64 positions in the current sequence, prefix tokens first; ascending unless the order
            is part of the method. None stands for the first tokens, which a slice takes without a gather.
        gap: [batch] float32, the smallest relative distance between two scores on either side of a cut; below
            about 1e-5 two backends may rightly decide differently. None where nothing was compared.
        merge: what is merged into the kept tokens; None: the others are dropped.
        fused: [batch, tokens] weights of one more token, appended last; None: there is none.
    """

    kept: Tensor | None
    gap: Tensor | None = None
    merge: Merge | None = None
    fused: Tensor | None = None


@dataclass(frozen=True)
class Scores:
    """How a method judges the patches of one block of the dense model, for calibration.

    Attributes:
        importance: [batch, patches], not negative; their share of the sum is the importance mass.
        notes: further figures by name, [batch] each, such as the share of heads that passed a filter.
    """

    importance: Tensor
    notes: dict[str, Tensor] = field(default_factory=dict)


class NoStageOptions(BaseModel):
    """Options of a method whose stages have none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PlaceOnly(BaseModel):
    """Parameters of a method that has only a place."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: Place = "before_mlp"


def need_attention(evidence: Evidence) -> Tensor:
    """The attention matrix of a method that declares `NEEDS_ATTENTION`."""
    if evidence.attention is None:
        raise ValueError("this method needs the attention matrix; its module must say NEEDS_ATTENTION = True")
    return evidence.attention


def relative_gap(scores: Tensor, cut: int) -> Tensor:
    """Relative distance between the `cut`-th and the next of descending scores.

    Args:
        scores: [batch, n], sorted in descending order.
        cut: how many stay on the upper side; 0 or n mean that nothing is cut.

    Returns:
        [batch] float32, infinity where nothing is cut.
    """
    if not 0 < cut < scores.shape[1]:
        return torch.full_like(scores[:, 0], float("inf"))
    above, below = scores[:, cut - 1], scores[:, cut]
    return (above - below) / above.abs().clamp_min(1e-12)


def keep_top_tokens(scores: Tensor, keep: int) -> Tensor:
    """Positions of the `keep` best tokens in ascending order.

    Ascending order makes what follows independent of how near-ties were ranked.

    Args:
        scores: [batch, tokens]; prefix tokens must have been set above every patch.

    Returns:
        [batch, keep] int64.
    """
    return ascending(scores.topk(keep, dim=1).indices)


def ascending(positions: Tensor) -> Tensor:
    """[batch, n] positions in ascending order.

    They are sorted as float32, exact far beyond any token count: TensorRT before 10 has no TopK on integers.
    """
    return positions.float().topk(positions.shape[1], dim=1, largest=False, sorted=True).values.long()


def keep_top_patches(scores: Tensor, patches: int, prefix: int) -> Tensor:
    """Positions of the `patches` best patches in ascending order, all prefix tokens in front.

    Args:
        scores: [batch, patch tokens].

    Returns:
        [batch, prefix + patches] int64.
    """
    front = torch.arange(prefix, device=scores.device).expand(scores.shape[0], -1)
    return torch.cat([front, keep_top_tokens(scores, patches) + prefix], dim=1)


def check_method_options(budget: Budget, parameters: type[BaseModel], options: type[BaseModel]) -> None:
    """Validate a budget's parameters and stage rows with the method's own models.

    Raises:
        InputError: with the key, what was found and what is allowed.
    """
    parse_parameters(budget.parameters, parameters, "parameters")
    for row in budget.stages:
        parse_stage(row, options)


def parse_parameters(data: dict[str, object], model: type[BaseModel], where: str) -> BaseModel:
    """Validate a method's parameters."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        allowed = ", ".join(model.model_fields) or "none"
        raise InputError(f"{where}.{first_problem(error)} (known keys: {allowed})") from error


def parse_stage(row: BlockTokens, model: type[BaseModel]) -> BaseModel:
    """Validate a stage row's own keys."""
    try:
        return model.model_validate(row.options)
    except ValidationError as error:
        allowed = ", ".join(model.model_fields) or "none"
        raise InputError(f"blocks[{row.block}].{first_problem(error)} (known keys: {allowed})") from error
