"""Which token that is left stands for which patch: the way from a pruned sequence back onto the whole grid.

::

    patches          0   1   2   3      1 merges into 0, 2 is dropped and most like 3
    after a stage    0   3
    home             0   0   1   1      rows of the sequence that is left, one for every patch

A merged token goes where it merged. One that is dropped, or summed with others into a fused one, goes to the patch that
stays and is most like it there: by cosine, as the block normalizes tokens. On photos that gives tokens nearer to the
dense model's than the last value of what is dropped, the nearest in place, or the fused token (docs/models.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from .methods.selection import Selection
from .rows import rows_of

STAYS = 1e4  # above every product of a normalized token with one of length 1, and float16 can hold it


def way(tokens: Tensor, selection: Selection, keep: int, prefix: int) -> tuple[Tensor, Tensor]:
    """Where a stage sends the tokens of the sequence before it.

    Args:
        tokens: [batch, tokens, width], normalized, before the stage.
        selection: what it decided.
        keep: tokens after the stage.
        prefix: leading tokens, which stand for no patch.

    Returns:
        [batch, tokens] int64 positions in the sequence after the stage; and the smallest difference [batch] of cosines
        by which a choice was made, infinity where none was.
    """
    kept = selection.kept
    if kept is None:
        kept = torch.arange(keep, device=tokens.device).expand(len(tokens), -1)
    known = _known(kept, selection, tokens)
    if _is_told(selection, tokens.shape[1]):
        return known.argmax(2), torch.full_like(tokens[:, 0, 0], float("inf"))
    kinds = rows_of(tokens, kept)
    kinds = kinds / kinds.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    alike = tokens @ kinds.transpose(1, 2)
    is_patch = torch.arange(kept.shape[1], device=kept.device) >= prefix
    chosen = torch.where(known > 0, STAYS, torch.where(is_patch, alike, -STAYS))
    return chosen.argmax(2), _margin(chosen, tokens)


def _known(kept: Tensor, selection: Selection, tokens: Tensor) -> Tensor:
    """[batch, tokens, kept], above 0 where a token stays, or merges, as the selection says."""
    places = torch.arange(tokens.shape[1], device=kept.device).view(1, -1, 1)
    stays = (kept.unsqueeze(1) == places).to(tokens.dtype)
    merge = selection.merge
    if merge is None or not merge.source.shape[1]:
        return stays
    targets = torch.arange(kept.shape[1], device=kept.device)
    target = merge.target if merge.active is None else torch.where(merge.active.unsqueeze(1), merge.target, -1)
    source = (merge.source.unsqueeze(1) == places).to(tokens.dtype)
    return stays + source @ (target.unsqueeze(2) == targets).to(tokens.dtype)


def _is_told(selection: Selection, tokens: int) -> bool:
    """Whether the selection itself says of every token where it goes."""
    kept, merge = selection.kept, selection.merge
    if kept is None or selection.fused is not None:
        return False
    merged = 0 if merge is None or merge.active is not None else merge.source.shape[1]
    return kept.shape[1] + merged == tokens


def _margin(chosen: Tensor, tokens: Tensor) -> Tensor:
    """The smallest lead [batch] of a choice over the next best one, as a difference of cosines."""
    if chosen.shape[2] < 2:
        return torch.full_like(tokens[:, 0, 0], float("inf"))
    best = chosen.topk(2, dim=2).values
    lead = (best[..., 0] - best[..., 1]) / tokens.norm(dim=-1).clamp_min(1e-12)
    return torch.where(best[..., 0] < STAYS, lead, float("inf")).amin(1)
